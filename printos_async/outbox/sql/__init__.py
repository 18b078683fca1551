"""Statements and tables, the same on SQLite and PostgreSQL."""
