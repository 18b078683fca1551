"""Where statuses wait until they are delivered: in memory, in a SQLite file, or in a PostgreSQL database."""

from ._base import (
    Claim,
    DeadLetter,
    Draft,
    Finish,
    Kept,
    Outbox,
    OutboxStats,
    PrivateOutbox,
    Progress,
    Release,
)
from ._memory import MemoryOutbox
from ._spool import SetAside
from ._sql import SqlOutbox

__all__ = [
    "Claim",
    "DeadLetter",
    "Draft",
    "Finish",
    "Kept",
    "MemoryOutbox",
    "Outbox",
    "OutboxStats",
    "PrivateOutbox",
    "Progress",
    "Release",
    "SetAside",
    "SqlOutbox",
]
