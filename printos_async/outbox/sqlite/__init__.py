"""The file of a SQLite outbox: its engine, permissions, clock and damage."""
