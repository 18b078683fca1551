"""The protocol of outboxes, as a pusher uses them, and its values.

An outbox has one row per device and tenant: the newest status, the number up to which statuses were delivered, and
the worker that owns the device. The row is deleted when its newest status was delivered, unless there is a hold or its
worker still has state of the device. So the size of an outbox depends on the statuses that wait. Workers own devices,
not single statuses: the owner of a device receives its later statuses too, until it has finished all of them. A worker
has one lease, however many devices it owns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


@frozen
class Draft:
    """A status to put into an outbox.

    Attributes:
        device_id: The device, as PrintOS names it.
        body: The JSON to send.
    """

    device_id: str
    body: bytes


@frozen
class Kept:
    """A status that the outbox has accepted.

    Attributes:
        seq: Its sequence number: higher than that of every earlier status of this device, with gaps. Clocks have no
            influence on it.
        claimed: Whether the worker that put it owns the device, and has to send it.
        uncertain_age_s: As in ``Claim``.
    """

    seq: int
    claimed: bool
    uncertain_age_s: float | None = None


@frozen
class Claim:
    """A status that its worker has to send.

    Attributes:
        device_id: The device.
        seq: Sequence number of the status.
        body: The JSON to send.
        attempts: Requests that were made for it before it was released.
        waited_s: Seconds since it was put.
        uncertain_age_s: Seconds since the end of the last uncertain write of this device; None if there is none. The
            outcome of such a write is unknown, and it may still be applied. A worker that died, or was stopped for
            longer than its lease, leaves uncertain writes. Negative while the request is under way.
        hold_s: Seconds for which nothing may be sent for the device; above 0 from ``claim_all`` only.
    """

    device_id: str
    seq: int
    body: bytes
    attempts: int = 0
    waited_s: float = 0.0
    uncertain_age_s: float | None = None
    hold_s: float = 0.0


@frozen
class Finish:
    """The completion of a status: it was delivered, or given up.

    Attributes:
        device_id: The device.
        seq: Sequence number of the newest status that was delivered or given up.
        hold_s: Seconds for which nothing may be sent for this device.
        attempts: Requests that were made for it.
        error: The error for which it was given up, which makes it a dead letter; None if it was delivered.
        keep: The worker continues to own the device, because it has state of it that is not in the outbox, and releases
            it later.
    """

    device_id: str
    seq: int
    hold_s: float = 0.0
    attempts: int = 0
    error: str | None = None
    keep: bool = False

    @property
    def may_forget(self) -> bool:
        """Whether the row can be deleted if no newer status has come."""
        return self.error is None and self.hold_s <= 0.0 and not self.keep


@frozen
class Release:
    """A device that its worker frees with its status unsent, or after ``Finish.keep``.

    Attributes:
        device_id: The device.
        hold_s: Seconds for which nothing may be sent for it.
        attempts: Requests that were made for the newest status that the worker has seen, without those that failed with
            the whole host. They do not count for a newer one that others have put.
        uncertain_in_s: Seconds until the end of the worker's last uncertain write; None if it made none. An uncertain
            write that the device had when it was claimed stays recorded until a status is finished.
    """

    device_id: str
    hold_s: float = 0.0
    attempts: int = 0
    uncertain_in_s: float | None = None


@frozen
class Progress:
    """Progress of delivery for one device.

    Attributes:
        device_id: The device.
        seq: Sequence number of the newest status.
        done_seq: Statuses up to this number were delivered, given up or superseded.
        attempts: Requests that were made for the last status that was delivered or given up, as far as is known.
        error: The error for which that one was given up, even if a newer one waits by now; None if it was delivered.
        hold_s: Seconds for which nothing is sent for the device although a status waits; 0 if a worker owns it.
    """

    device_id: str
    seq: int
    done_seq: int
    attempts: int
    error: str | None
    hold_s: float = 0.0


class Outbox(Protocol):
    """Store of the newest status of every device, until it is delivered.

    Every method may be repeated after an error; a repeated ``put`` counts as a newer status. After a cancelled call it
    is unknown whether it took effect, and its result is lost. ``newer`` returns lost claims again; otherwise they are
    free when the lease ends.

    Attributes:
        is_shared: Whether other processes may use it at the same time. If not, it is a ``PrivateOutbox``.
        lease_s: Seconds after which a worker that does not renew its lease loses its devices.
        on_replaced: Set by a pusher, and reset to None when it has closed the outbox. The outbox calls it in the event
            loop when an empty store has replaced the one that was opened, for example a new file a damaged one; the old
            store's workers and statuses are not in the new one. An outbox whose store is never replaced does not call
            it.

    Every method raises ``OutboxError`` if the outbox cannot be read or written.
    """

    is_shared: bool
    lease_s: float
    on_replaced: Callable[[], None] | None

    async def open(self, account: str) -> None:
        """Open the outbox for one tenant; create or migrate its store if needed. Does nothing if it is already open.

        Args:
            account: The tenant: ``PrintOSClient.account``. Rows of other tenants are never sent or changed.

        An outbox that lists its tenants is a ``LabellingOutbox``, and receives a label for each tenant as well.

        Raises:
            ConfigurationError: The outbox is open for another tenant.
        """
        ...

    async def aclose(self) -> None:
        """Close files and connections. Does nothing if they are closed."""
        ...

    async def put(self, drafts: Sequence[Draft], *, owner: int | None = None) -> list[Kept]:
        """Store statuses, each as the newest of its device. When this returns, a durable outbox has committed them.

        Concurrent calls take effect in the order in which they were made. A new status replaces a dead letter.

        Args:
            drafts: Any number; several of one device count as put one after the other. The drafts of one call share
                commits; a pusher and a spooler combine concurrent puts in one call.
            owner: A worker that claims those of the devices that nobody owns and that are not in a hold.

        Returns:
            One for each draft, in order.
        """
        ...

    async def join(self) -> int:
        """Add a worker, whose lease starts now, and return its token for the other calls."""
        ...

    async def renew(self, owner: int) -> bool:
        """Renew the worker's lease; return False if it has ended.

        If it has ended, the worker owns nothing any more and has to join again. Renewing also frees the devices of
        other workers whose lease has ended, and marks their writes as uncertain; and it deletes delivered rows whose
        hold has ended.
        """
        ...

    async def claim(self, owner: int, limit: int) -> list[Claim]:
        """Claim devices that nobody owns, have a waiting status and are not in a hold; return these, oldest first.

        Args:
            owner: The worker; it receives nothing if its lease has ended.
            limit: Maximum number of devices.
        """
        ...

    async def finish(self, owner: int, finished: Sequence[Finish]) -> list[Claim]:
        """Record completions, and free the devices unless a newer status has come in the meantime.

        The row of a delivered status is deleted, unless there is a hold or ``keep`` is true. The device's later
        statuses have higher sequence numbers all the same. Completions for devices that the worker no longer owns have
        no effect.

        Returns:
            The newer statuses; the worker still owns their devices.
        """
        ...

    async def release(self, owner: int, released: Sequence[Release]) -> None:
        """Free devices with their statuses unsent. Has no effect on devices that the worker does not own."""
        ...

    async def leave(self, owner: int) -> None:
        """Remove a worker and free its devices; their last writes count as uncertain from now on."""
        ...

    async def newer(self, owner: int, limit: int) -> list[Claim]:
        """Return statuses that others have put for devices that the worker owns and that are not in a hold.

        Each status is returned once, by this or by ``finish``, oldest first. After a lost connection, or a call whose
        answer may have been lost, this returns once all waiting statuses of the worker's devices, some of which it may
        already have.

        Args:
            owner: The worker.
            limit: Maximum number of devices, except after a lost answer.
        """
        ...

    async def progress(self, device_ids: Iterable[str]) -> list[Progress]:
        """Return the progress of delivery for those of the devices that have a row.

        A device without a row has no waiting status: its last one was delivered, or purged.
        """
        ...


class PrivateOutbox(Outbox, Protocol):
    """An outbox of one process. It serves one pusher, which claims all devices, and releases those left unsent."""

    async def claim_all(self, owner: int) -> list[Claim]:
        """Claim every device with a waiting status that nobody owns, whether or not it is in a hold."""
        ...
