"""The protocol of an outbox's administration: counts, dead letters, purging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable


@frozen
class DeadLetter:
    """A status that was given up; a newer one of its device takes its place.

    Attributes:
        device_id: The device.
        seq: Sequence number of the status.
        body: The JSON that was sent.
        attempts: Requests that were made for it.
        error: The last error, as text without secrets.
        failed_age_s: Seconds since then.
    """

    device_id: str
    seq: int
    body: bytes
    attempts: int
    error: str
    failed_age_s: float


@frozen(kw_only=True)
class OutboxStats:
    """Counts of a tenant's rows at one moment.

    Attributes:
        devices: Devices with a row: those below, those in a hold, and those that a worker goes on owning. The row of
            a delivered device is usually deleted at once.
        waiting: Of these, with a status that is neither delivered nor given up, claimed or not.
        claimed: Of the waiting, owned by a worker.
        failed: Devices whose newest status is a dead letter.
        workers: Workers whose lease runs.
        oldest_waiting_s: Seconds for which the device that waits longest has had a status waiting; a newer status
            that replaces a waiting one does not shorten it. None if none waits.
    """

    devices: int
    waiting: int
    claimed: int
    failed: int
    workers: int
    oldest_waiting_s: float | None


class OutboxAdministration(Protocol):
    """Operators' side of an open outbox: counts, dead letters, purging. A pusher uses ``Outbox`` alone.

    Every method raises ``OutboxError`` if the outbox cannot be read or written.
    """

    async def stats(self) -> OutboxStats:
        """Return counts of the tenant's rows."""
        ...

    async def failed(self, *, limit: int = 100, after: str = "") -> list[DeadLetter]:
        """Return dead letters of devices whose identifier is greater than ``after``, in the order of identifiers."""
        ...

    async def requeue(self, device_ids: Iterable[str] | None = None) -> int:
        """Make dead letters of these devices, or all, wait again; return how many there were.

        Each counts as put again, with the next sequence number of its device.
        """
        ...

    async def purge(self, *, failed: bool = False, older_than_s: float = 0.0) -> int:
        """Delete the rows of delivered devices, or with ``failed`` dead letters; return how many there were.

        What waits is never purged. Of delivered devices there are the few rows that ``finish`` did not delete: those
        with a hold, and those with an uncertain write of a worker that has ended.

        Args:
            failed: Purge dead letters instead.
            older_than_s: Only those delivered or given up at least so many seconds ago.
        """
        ...
