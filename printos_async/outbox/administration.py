"""The protocol of an outbox's administration: counts, devices, dead letters, purging, tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import frozen

from .protocol import Outbox

if TYPE_CHECKING:
    from collections.abc import Iterable


@frozen
class DeadLetter:
    """A status that was given up; a newer status of its device replaces it.

    Attributes:
        device_id: The device.
        seq: Sequence number of the status.
        body: The JSON that was sent.
        attempts: Requests that were made for it.
        error: Text of the last error, without secrets.
        failed_age_s: Seconds since it was given up.
    """

    device_id: str
    seq: int
    body: bytes
    attempts: int
    error: str
    failed_age_s: float


@frozen(kw_only=True)
class DeviceDelivery:
    """State of a device's delivery: its last delivery, its waiting status and its last failure.

    Attributes:
        device_id: The device.
        delivered_age_s: Seconds since the last delivery of a status; None if none is known.
        waiting_s: Seconds for which it has had a waiting status; None if none waits.
        failed_age_s: Seconds since its last completed status was given up, even if a newer one waits by now; None if
            that one was delivered.
        error: Text of the error for which it was given up, without secrets; None if it was delivered.
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
        devices: Devices with a row: those below, those in a hold, and those that a worker still owns after delivery.
            The row of a delivered device is usually deleted at once.
        waiting: Of these, devices with a status that is neither delivered nor given up, claimed or not.
        claimed: Of the waiting devices, those that a worker owns.
        failed: Devices whose newest status is a dead letter.
        workers: Workers whose lease has not ended.
        oldest_waiting_s: The longest time in seconds for which a device has had a waiting status. It does not become
            shorter when a newer status replaces the waiting one. None if none waits.
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
            is not known, because an earlier version has put its rows.
        host: PrintOS's host for which it was opened last; empty if it is not known.
        waiting: Devices with a status that is neither delivered nor given up.
        failed: Devices whose newest status is a dead letter.
        workers: Workers whose lease has not ended.
        is_own: Whether it is the tenant for which the outbox is open.
    """

    account: str
    label: str
    host: str
    waiting: int
    failed: int
    workers: int
    is_own: bool


class LabellingOutbox(Outbox, Protocol):
    """An outbox that stores a label for each tenant, for ``OutboxAdministration.tenants``.

    If an outbox has a method ``tenants``, it is opened with these arguments. Other outboxes need not accept them.
    """

    async def open(self, account: str, *, label: str = "", host: str = "") -> None:
        """Open the outbox as ``Outbox.open``, and store the tenant's label and host.

        Logs a warning once if devices wait under another tenant of this host, or under a tenant of another host that
        has no worker: a key or the host may have changed.

        Args:
            account: As in ``Outbox.open``.
            label: As in ``TenantStats``; an empty one does not change the stored one.
            host: As in ``TenantStats``; an empty one does not change the stored one.
        """
        ...


class OutboxAdministration(Protocol):
    """Administration of an open outbox: counts, devices, dead letters, purging and tenants.

    A pusher does not need it: it uses ``Outbox``.

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
        """Return devices with a delivery, a waiting status or a failure, in the order of identifiers.

        The time of the last delivery is written with a delay of about ten seconds, in a busy fleet a minute or more. A
        process that is killed loses the times of its last seconds. ``purge_deliveries`` deletes them.

        Args:
            silent_for_s: Only devices whose last delivery was at least this many seconds ago; and of the devices
                without a known delivery, those that have failed, or have had a waiting status for this long.
            limit: Maximum number of devices.
            after: Only devices whose identifier is greater.
        """
        ...

    async def requeue(self, device_ids: Iterable[str] | None = None) -> int:
        """Requeue the dead letters of these devices, or of all; return their number.

        Each counts as put again, with the next sequence number of its device.
        """
        ...

    async def purge(self, *, failed: bool = False, older_than_s: float = 0.0) -> int:
        """Delete the rows of delivered devices, or with ``failed`` dead letters; return their number.

        Waiting statuses are never deleted. Of delivered devices only a few rows remain, which ``finish`` did not
        delete: those with a hold, and those with an uncertain write of a worker that has ended.

        Args:
            failed: Delete dead letters instead.
            older_than_s: Only those delivered or given up at least this many seconds ago.
        """
        ...

    async def purge_deliveries(self, *, older_than_s: float = 0.0) -> int:
        """Delete the times of the last deliveries of devices without a row; return their number.

        Until then ``devices`` lists devices that are no longer in use.

        Args:
            older_than_s: Only those delivered last at least this many seconds ago.
        """
        ...

    async def tenants(self) -> list[TenantStats]:
        """Return the tenants of the outbox, also those without rows, in the order of their labels."""
        ...

    async def adopt(self, tenant: str) -> int:
        """Hand the rows of another tenant to this one; return the number of waiting and failed statuses.

        If both tenants have a status of a device, the one that was put last stays; a dead letter stays with the other
        tenant as long as an older status waits here. Sequence numbers continue above those of this tenant. Of two holds
        or uncertain writes of a device the longer one stays, and of two last deliveries the later one. The call may be
        repeated, and continued after an error.

        Statuses that this tenant has delivered are not stored. So a status that waits under the other tenant is sent
        even if a newer one of its device was delivered for this tenant: adopt before new statuses are put, or soon.

        Args:
            tenant: The other tenant's fingerprint, its beginning, or its label.

        Raises:
            ConfigurationError: No tenant or several tenants match, or the tenant is this one.
            OutboxError: Workers of the other tenant run.
        """
        ...
