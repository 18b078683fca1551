"""Monitoring of commands that run on: health and metrics over HTTP, and notifications to systemd."""
