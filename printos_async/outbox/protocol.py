"""What an outbox keeps, and what a pusher asks of it.

One row per device and account: the newest status, whether it was delivered, and who is delivering it. The row of a
device with nothing left to tell is deleted, so that the outbox is as large as what waits. Workers own devices, not single statuses: a worker that has claimed a device gets its later statuses too, until it has finished
what it knows of. A lease belongs to the worker as a whole; one statement renews it, however many devices it owns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@frozen
class Draft:
    """A status that is to be kept.

    Attributes:
        device_id: The device, as PrintOS names it.
        body: The JSON that is sent.
    """

    device_id: str
    body: bytes


@frozen
class Kept:
    """A status that was kept.

    Attributes:
        seq: Its number, above that of every earlier status of this device; gaps tell nothing. The outbox's own;
            clocks order nothing.
        claimed: Whether the worker for which it was put owns the device, and has to send it.
        doubt_age_s: As in ``Claim``.
    """

    seq: int
    claimed: bool
    doubt_age_s: float | None = None


@frozen
class Claim:
    """A status that its worker is to send.

    Attributes:
        device_id: The device.
        seq: Number of the status.
        body: The JSON to send.
        attempts: Requests that were made for it before it was given back.
        waited_s: Seconds since it was put.
        doubt_age_s: Seconds since the moment from which no earlier request of this device is under way any more
            that may have been lost on its way and may still land; None if there is none. A worker that died, or
            was stopped for longer than its lease, leaves such devices behind. Below 0 while one is under way.
        hold_s: Seconds in which nothing is to be sent for the device; above 0 from ``claim_all`` only.
    """

    device_id: str
    seq: int
    body: bytes
    attempts: int = 0
    waited_s: float = 0.0
    doubt_age_s: float | None = None
    hold_s: float = 0.0


@frozen
class Finish:
    """What became of a status.

    Attributes:
        device_id: The device.
        seq: Number of the newest status that was delivered or given up.
        hold_s: Seconds in which nothing is to be sent for this device.
        attempts: Requests that were made for it.
        error: Why it was given up, which makes it a dead letter; None if it was delivered.
        keep: The worker goes on owning the device, for it remembers something of it that the outbox does not.
            It releases the device later.
    """

    device_id: str
    seq: int
    hold_s: float = 0.0
    attempts: int = 0
    error: str | None = None
    keep: bool = False

    @property
    def may_forget(self) -> bool:
        """Whether nothing is left to tell of the device, unless a newer status has come."""
        return self.error is None and self.hold_s <= 0.0 and not self.keep


@frozen
class Release:
    """A device that its worker gives back with its status unsent, or that it had kept.

    Attributes:
        device_id: The device.
        hold_s: Seconds in which nothing is to be sent for it.
        attempts: Requests that were made for its newest status.
        doubt_in_s: Seconds until the last request has ended that may still land; None if the worker made none. A
            doubt that the device had when it was claimed stays until a status is finished.
    """

    device_id: str
    hold_s: float = 0.0
    attempts: int = 0
    doubt_in_s: float | None = None


@frozen
class DeadLetter:
    """A status that was given up; a newer one of its device takes its place.

    Attributes:
        device_id: The device.
        seq: Number of the status.
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


@frozen
class Progress:
    """How far a device has come.

    Attributes:
        seq: Number of the newest status.
        done_seq: What has a number up to this one was delivered, given up or superseded.
        attempts: Requests that were made for the newest status that was delivered or given up, as far as is known.
        error: Why that one was given up, also where a newer one waits by now; None if it was delivered.
        hold_s: Seconds in which nothing is sent for the device although a status waits; 0 where a worker owns it.
    """

    device_id: str
    seq: int
    done_seq: int
    attempts: int
    error: str | None
    hold_s: float = 0.0


@frozen(kw_only=True)
class OutboxStats:
    """An account's rows at one moment.

    Attributes:
        devices: Devices that the outbox knows: those below, and those on which it still holds something back or
            which their worker keeps. One whose status was delivered is usually forgotten at once.
        waiting: Of these, with a status that is neither delivered nor given up, claimed or not.
        claimed: Of the waiting, owned by a worker.
        failed: Devices whose newest status is a dead letter.
        workers: Workers whose lease runs.
        oldest_waiting_s: Seconds for which a device has had something waiting at the longest; a newer status that
            takes the place of a waiting one does not shorten it. None if none waits.
    """

    devices: int
    waiting: int
    claimed: int
    failed: int
    workers: int
    oldest_waiting_s: float | None


class Outbox(Protocol):
    """Keeps the newest status of every device until it was delivered.

    Every method but ``put`` may be repeated after an error. ``put`` may be as well: it then has one number more.
    Cancelling a call leaves open whether it took place; what it had to return is lost, and a claim with it
    until ``newer`` finds it or the lease ends.

    Attributes:
        is_shared: Other processes may use it at the same time. One that is not shared is a ``PrivateOutbox``.
        lease_s: Seconds after which a worker that does not renew has lost its devices.

    Every method raises ``OutboxError`` where the outbox cannot be read or written.
    """

    is_shared: bool
    lease_s: float

    async def open(self, account: str) -> None:
        """Make ready for one account, creating or migrating what is needed; again for the same one does nothing.

        Args:
            account: Fingerprint of base URL and credentials. Nothing of another account is ever seen or touched.

        Raises:
            ConfigurationError: It is open for another account.
        """
        ...

    async def aclose(self) -> None:
        """Let go of files and connections. The second time does nothing."""
        ...

    async def put(self, drafts: Sequence[Draft], *, owner: int | None = None) -> list[Kept]:
        """Keep statuses, each as the newest of its device; durable when it returns, if the outbox is.

        Concurrent calls share commits, in the order of coming. A dead letter of the same device is gone with it.

        Args:
            drafts: Any number; several of one device count as put one after the other.
            owner: A worker that takes the devices which nobody owns and which may be sent for now.

        Returns:
            One for each draft, in order.
        """
        ...

    async def join(self) -> int:
        """Become a worker; gives the token that the other calls need. The lease starts now."""
        ...

    async def renew(self, owner: int) -> bool:
        """Renew the lease, and free the devices of workers whose lease has ended, in doubt.

        Devices that only stayed for a hold which has passed are forgotten.

        False if this worker's own has ended: it owns nothing any more, and has to join anew.
        """
        ...

    async def claim(self, owner: int, limit: int) -> list[Claim]:
        """Take ownership of devices with a waiting status that nobody owns and whose time has come, oldest first.

        Args:
            owner: The worker; one whose lease has ended gets nothing.
            limit: Devices at most.
        """
        ...

    async def finish(self, owner: int, finished: Sequence[Finish]) -> list[Claim]:
        """Note what became of statuses, and give up their devices, unless a newer status has come meanwhile.

        A device whose status was delivered is forgotten, if there is no hold and its worker does not keep it. The
        numbers of its later statuses are higher all the same.

        Devices that the worker does not own any more are left alone.

        Returns:
            The newer statuses, whose devices the worker still owns.
        """
        ...

    async def release(self, owner: int, released: Sequence[Release]) -> None:
        """Give devices back with their statuses unsent. Devices that the worker does not own are left alone."""
        ...

    async def leave(self, owner: int) -> None:
        """End as a worker; whatever it still owns is given back, in doubt from now on."""
        ...

    async def newer(self, owner: int, limit: int) -> list[Claim]:
        """Take what others have put for devices that the worker owns and whose time has come, oldest first.

        Each status is told once: by this, or by ``finish``. After a call whose answer may have been lost, or a lost
        connection, this also gives, once, whatever waits and is owned by the worker, so that it may know some of it
        already.

        Args:
            owner: The worker.
            limit: Devices at most, but for what is given after a lost answer.
        """
        ...

    async def progress(self, device_ids: Iterable[str]) -> list[Progress]:
        """Tell how far devices have come; those that the outbox does not know are left out.

        A device that is left out has nothing waiting: what was put for it was delivered, or purged.
        """
        ...


class PrivateOutbox(Outbox, Protocol):
    """An outbox of one process. It serves one pusher, which takes everything and gives back what it has not sent."""

    async def claim_all(self, owner: int) -> list[Claim]:
        """Take ownership of every device with a waiting status that nobody owns, whether its time has come or not."""
        ...


class OutboxAdministration(Protocol):
    """Operators' side of an open outbox: counts, dead letters, purging. A pusher uses ``Outbox`` alone.

    Every method raises ``OutboxError`` where the outbox cannot be read or written.
    """

    async def stats(self) -> OutboxStats:
        """Count the account's rows."""
        ...

    async def failed(self, *, limit: int = 100, after: str = "") -> list[DeadLetter]:
        """List dead letters in the order of the device identifiers, from behind ``after``."""
        ...

    async def requeue(self, device_ids: Iterable[str] | None = None) -> int:
        """Let dead letters be sent again, of these devices or all; gives how many there were.

        Each counts as put again, with the next number of its device.
        """
        ...

    async def purge(self, *, failed: bool = False, older_than_s: float = 0.0) -> int:
        """Forget devices whose newest status was delivered, or with ``failed`` those that are dead letters.

        What waits is never purged. Of those delivered there are the few that were not forgotten by ``finish``: they
        stayed for a hold, or in doubt after the end of their worker.

        Args:
            failed: Purge dead letters instead.
            older_than_s: Only those delivered or given up at least so long ago.

        Returns:
            How many there were.
        """
        ...
