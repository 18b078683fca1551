"""Delivery backends: what stands between a pusher and the place where its statuses wait."""
