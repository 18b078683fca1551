"""Where statuses wait until they are delivered: in memory, in a SQLite file, or in a PostgreSQL database."""

from ._base import (
    Claim,
    DeadLetter,
    Draft,
    Finish,
    Kept,
    Outbox,
    OutboxStats,
    Progress,
    Release,
)

__all__ = [
    "Claim",
    "DeadLetter",
    "Draft",
    "Finish",
    "Kept",
    "Outbox",
    "OutboxStats",
    "Progress",
    "Release",
]
