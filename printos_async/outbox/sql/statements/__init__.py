"""The SQL of an outbox, one statement for each operation, as SQLAlchemy expressions."""
