"""The protocol of an outbox's administration: counts, devices, dead letters, purging, tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import frozen

from .protocol import Outbox

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
class DeviceDelivery:
    """How far delivery of a device has come: its last delivery, what waits, and what failed.

    Attributes:
        device_id: The device.
        delivered_age_s: Seconds since a status of it was delivered last; None if none is known.
        waiting_s: Seconds for which it has had a status waiting; None if none waits.
        failed_age_s: Seconds since its last completed status was given up, even if a newer one waits by now; None if
            that one was delivered.
        error: Why it was given up, as text without secrets; None if it was delivered.
    """

    device_id: str
    delivered_age_s: float | None
    waiting_s: float | None
    failed_age_s: float | None
    error: str | None


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


@frozen(kw_only=True)
class TenantStats:
    """A tenant of an outbox, and counts of its rows.

    Attributes:
        account: Its fingerprint, as ``PrintOSClient.account``.
        label: Its name for people, without a secret: ``site-7``, or host and first characters of the key. Empty if it
            is not known: an earlier release has put its rows.
        host: PrintOS's host for which it was opened last; empty if it is not known.
        waiting: Devices with a status that is neither delivered nor given up.
        failed: Devices whose newest status is a dead letter.
        workers: Workers whose lease runs.
        is_own: It is the tenant for which the outbox is open.
    """

    account: str
    label: str
    host: str
    waiting: int
    failed: int
    workers: int
    is_own: bool


class LabellingOutbox(Outbox, Protocol):
    """An outbox that keeps a label for each tenant, for ``OutboxAdministration.tenants``.

    An outbox that has a method ``tenants`` is opened with these arguments. Others need not accept them.
    """

    async def open(self, account: str, *, label: str = "", host: str = "") -> None:
        """Open the outbox as ``Outbox.open``, and keep who its tenant is.

        Warns once, in the log, if devices wait under another tenant of this host, or of another host under one that
        has no worker: a key or the host may have changed.

        Args:
            account: As in ``Outbox.open``.
            label: As in ``TenantStats``; empty leaves the one that is kept.
            host: As in ``TenantStats``; empty leaves the one that is kept.
        """
        ...


class OutboxAdministration(Protocol):
    """Operators' side of an open outbox: counts, devices, dead letters, purging, tenants. A pusher uses ``Outbox`` alone.

    Every method raises ``OutboxError`` if the outbox cannot be read or written.
    """

    async def stats(self) -> OutboxStats:
        """Return counts of the tenant's rows."""
        ...

    async def failed(self, *, limit: int = 100, after: str = "") -> list[DeadLetter]:
        """Return dead letters of devices whose identifier is greater than ``after``, in the order of identifiers."""
        ...

    async def devices(
        self, *, silent_for_s: float = 0.0, limit: int = 100, after: str = ""
    ) -> list[DeviceDelivery]:
        """Return devices that were delivered, wait or have failed, in the order of identifiers.

        The time of the last delivery is written late, after some ten seconds and after a minute or more in a busy fleet, and a process that is killed loses those of its last
        seconds. ``purge_deliveries`` deletes it.

        Args:
            silent_for_s: Only devices that were delivered last at least so many seconds ago. Of those without a known
                delivery: those that have failed, or have had a status waiting for so long.
            limit: Maximum number of devices.
            after: Only those whose identifier is greater.
        """
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

    async def purge_deliveries(self, *, older_than_s: float = 0.0) -> int:
        """Forget when devices without a row were delivered last; return how many there were.

        Devices that are gone stay in ``devices`` until then.

        Args:
            older_than_s: Only those delivered last at least so many seconds ago.
        """
        ...

    async def tenants(self) -> list[TenantStats]:
        """Return the tenants of the outbox, in the order of their labels, with those that have no rows any more."""
        ...

    async def adopt(self, tenant: str) -> int:
        """Hand the rows of another tenant to this one; return how many waiting and failed statuses there were.

        Of a device that both have, the status that was put last stays; a dead letter stays with the other tenant as
        long as an older status waits here. Numbers continue above those of this tenant. Holds and uncertain writes
        count on, the longer ones. Of the last deliveries of a device the later one stays. It may be repeated, and continued after an error.

        What this tenant has delivered is not kept. So a status that waits under the other one is sent although a
        newer one of its device was delivered for this tenant: adopt before new statuses are put, or soon.

        Args:
            tenant: The other one's fingerprint, the beginning of it, or its label.

        Raises:
            ConfigurationError: No tenant is called so, or several are, or it is the own one.
            OutboxError: Workers of the other tenant run.
        """
        ...
