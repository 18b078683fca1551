"""Delivery backends: where a pusher stores statuses, and how they reach its engine."""
