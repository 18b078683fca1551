"""The protocol of outboxes, as a pusher uses them, and its values.

An outbox has one row per device and tenant: the newest status, the number up to which statuses were delivered, and
the worker that owns the device. The row is deleted when its newest status was delivered and nothing is held back, so
the outbox is as large as what waits. Workers own devices, not single statuses: the owner of a device gets its later
statuses too, until it has finished all that it knows of. A worker has one lease, however many devices it owns.
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
        body: The JSON that is sent.
    """

    device_id: str
    body: bytes


@frozen
class Kept:
    """A status that the outbox has accepted.

    Attributes:
        seq: Its sequence number: higher than that of every earlier status of this device, with gaps. The outbox
            counts; no clock orders anything.
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
        uncertain_age_s: Seconds since the last uncertain write of this device has ended; None if there is none. Its
            outcome is unknown, and it may still land. A worker that died, or was stopped for longer than its lease,
            leaves such writes behind. Negative while the request is under way.
        hold_s: Seconds in which nothing must be sent for the device; above 0 from ``claim_all`` only.
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
        hold_s: Seconds in which nothing must be sent for this device.
        attempts: Requests that were made for it.
        error: Why it was given up, which makes it a dead letter; None if it was delivered.
        keep: The worker goes on owning the device, because it has state of it that the outbox has not, and releases
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
        """Whether the row can be deleted, unless a newer status has come."""
        return self.error is None and self.hold_s <= 0.0 and not self.keep


@frozen
class Release:
    """A device that its worker gives up with its status unsent, or after ``Finish.keep``.

    Attributes:
        device_id: The device.
        hold_s: Seconds in which nothing must be sent for it.
        attempts: Requests that were made for its newest status, without those that failed with the whole host.
        uncertain_in_s: Seconds until the last uncertain write has ended; None if the worker made none. One that the
            device had when it was claimed stays until a status is finished.
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
        error: Why that one was given up, even if a newer one waits by now; None if it was delivered.
        hold_s: Seconds in which nothing is sent for the device although a status waits; 0 if a worker owns it.
    """

    device_id: str
    seq: int
    done_seq: int
    attempts: int
    error: str | None
    hold_s: float = 0.0


class Outbox(Protocol):
    """Store of the newest status of every device, until it was delivered.

    Every method may be repeated after an error; a repeated ``put`` counts as a newer status. Cancelling a call leaves
    open whether it took place, and its result is lost; lost claims are returned by ``newer``, or free when the lease
    ends.

    Attributes:
        is_shared: Other processes may use it at the same time. One that is not shared is a ``PrivateOutbox``.
        lease_s: Seconds after which a worker that does not renew its lease loses its devices.
        on_replaced: Set by a pusher. Called in the event loop when an empty store has taken the place of the one that
            was opened, such as a new file that of a damaged one: workers and statuses were in the old one. An outbox
            whose store is never replaced does not call it.

    Every method raises ``OutboxError`` if the outbox cannot be read or written.
    """

    is_shared: bool
    lease_s: float
    on_replaced: Callable[[], None] | None

    async def open(self, account: str) -> None:
        """Open the outbox for one tenant, and create or migrate what is needed. Does nothing if it is open for it.

        Args:
            account: The tenant: ``PrintOSClient.account``. Rows of others are never sent or changed.

        An outbox that lists its tenants is a ``LabellingOutbox``, and gets a label for each, too.

        Raises:
            ConfigurationError: The outbox is open for another tenant.
        """
        ...

    async def aclose(self) -> None:
        """Close files and connections. Does nothing if they are closed."""
        ...

    async def put(self, drafts: Sequence[Draft], *, owner: int | None = None) -> list[Kept]:
        """Store statuses, each as the newest of its device; if the outbox is durable, they are when this returns.

        Concurrent calls take place in the order in which they were made. A new status replaces a dead letter.

        Args:
            drafts: Any number; several of one device count as put one after the other. Those of one call share commits:
                a pusher and a spooler pass what was put concurrently in one call.
            owner: A worker that claims those of the devices which nobody owns and which are not in a hold.

        Returns:
            One for each draft, in order.
        """
        ...

    async def join(self) -> int:
        """Add a worker, whose lease starts now; return its token for the other calls."""
        ...

    async def renew(self, owner: int) -> bool:
        """Renew the worker's lease; return False if it has ended.

        The worker then owns nothing any more and has to join again. Renewing also frees the devices of workers whose
        lease has ended, with their writes uncertain, and deletes delivered rows whose hold has passed.
        """
        ...

    async def claim(self, owner: int, limit: int) -> list[Claim]:
        """Take devices that nobody owns, that have a waiting status and are not in a hold; return it, oldest first.

        Args:
            owner: The worker; one whose lease has ended gets nothing.
            limit: Maximum number of devices.
        """
        ...

    async def finish(self, owner: int, finished: Sequence[Finish]) -> list[Claim]:
        """Record completions, and free the devices unless a newer status has come in the meantime.

        The row of a delivered status is deleted, unless there is a hold or its worker keeps the device. Sequence
        numbers of the device's later statuses are higher all the same. Completions for devices that the worker no
        longer owns have no effect.

        Returns:
            The newer statuses; the worker still owns their devices.
        """
        ...

    async def release(self, owner: int, released: Sequence[Release]) -> None:
        """Free devices with their statuses unsent. Has no effect on devices that the worker does not own."""
        ...

    async def leave(self, owner: int) -> None:
        """Remove a worker, and free all that it owns, with its writes uncertain from now on."""
        ...

    async def newer(self, owner: int, limit: int) -> list[Claim]:
        """Return statuses that others have put for devices which the worker owns and which are not in a hold.

        Each status is returned once, by this or by ``finish``, oldest first. After a call whose answer may have been
        lost, or a lost connection, this also returns, once, everything that waits and is the worker's, so that it may
        know some of it already.

        Args:
            owner: The worker.
            limit: Maximum number of devices, except after a lost answer.
        """
        ...

    async def progress(self, device_ids: Iterable[str]) -> list[Progress]:
        """Return how far delivery has come, for those of the devices that have a row.

        A device without a row has nothing waiting: its last status was delivered, or purged.
        """
        ...


class PrivateOutbox(Outbox, Protocol):
    """An outbox of one process. It serves one pusher, which claims everything and releases what it has not sent."""

    async def claim_all(self, owner: int) -> list[Claim]:
        """Take every device with a waiting status that nobody owns, whether or not it is in a hold."""
        ...
