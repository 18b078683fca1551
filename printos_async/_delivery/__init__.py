"""The newest status of each device: one request in flight per device, retried and coalesced."""
