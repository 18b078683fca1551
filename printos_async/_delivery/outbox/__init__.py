"""Delivery from an outbox: between the engine and a store."""
