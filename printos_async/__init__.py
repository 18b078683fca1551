"""Asyncio client for the HP PrintOS Device API."""
