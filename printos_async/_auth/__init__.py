"""Credentials, as ``httpx.Auth``."""
