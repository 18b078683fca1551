"""The SQL of an outbox as SQLAlchemy expressions: the statements on statuses, and what all statements share."""
