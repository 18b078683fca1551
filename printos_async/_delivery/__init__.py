"""Delivery of the newest status of each device, with one request per device in flight at a time."""
