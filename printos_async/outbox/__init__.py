"""Outboxes: stores of statuses that wait for delivery, in memory, in a SQLite file or in a PostgreSQL database."""

from .administration import (
    DeadLetter,
    DeviceDelivery,
    LabellingOutbox,
    OutboxAdministration,
    OutboxStats,
    TenantStats,
)
from .memory import MemoryOutbox
from .protocol import Claim, Draft, Finish, Kept, Outbox, PrivateOutbox, Progress, Release
from .sql.outbox import SqlOutbox
from .sqlite.replaceable_file import SetAside

__all__ = [
    "Claim",
    "DeadLetter",
    "DeviceDelivery",
    "Draft",
    "Finish",
    "Kept",
    "LabellingOutbox",
    "MemoryOutbox",
    "Outbox",
    "OutboxAdministration",
    "OutboxStats",
    "PrivateOutbox",
    "Progress",
    "Release",
    "SetAside",
    "SqlOutbox",
    "TenantStats",
]
