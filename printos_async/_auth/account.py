"""Account: credentials of PrintOS, and the hold while PrintOS refuses them. No I/O and no clock.

The host is shared by all accounts: its pauses and its circuit breaker are in ``_execution.circuit_breaker``.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define, field

from .base import ReadyAuth, SecretUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .base import AnyAuth

# A held account sends one probe after this time, which doubles with each refusal.
FIRST_PROBE_S = 1.0
MAX_PROBE_S = 60.0
# A 403 or 404 may be of one device alone. When so many different devices of an account were refused so in a row, it is
# the account that is refused.
_DEVICES_THAT_TELL = 10
# Devices that PrintOS refuses although it accepts their account; beyond this number they are forgotten.
_MAX_ODD_DEVICES = 1_000


@define(eq=False, weakref_slot=True)
class Account:
    """Credentials, and what is known of them.

    Attributes:
        auth: The credentials; None sends none.
        device_id: The only device whose credentials these are; None if several devices use them.
        problem: Why nothing can be sent; empty if there are credentials.
        must_ask: The credentials were refused: they have to be looked up again before the next request.
        refusals: What PrintOS has refused since it last accepted the credentials; None if nothing.
        devices: Number of devices for which these credentials were looked up last.
        was_left: While it was held, a device that shared it got other credentials.
    """

    auth: AnyAuth | None = field(repr=False)
    device_id: str | None = None
    problem: str = ""
    must_ask: bool = False
    refusals: Refusals | None = None
    devices: int = 0
    was_left: bool = False

    @property
    def ready(self) -> ReadyAuth | None:
        """The credentials, if they usually know their headers without a request of their own."""
        return self.auth if isinstance(self.auth, ReadyAuth) else None

    def refresh(self) -> None:
        """Ask for the secret again.

        Raises:
            SecretUnavailableError: The function that returns it failed.
        """
        if isinstance(self.auth, ReadyAuth):
            self.auth.refresh()

    def start_probe(self, device_id: str) -> None:
        """Note that the next request of a device is the probe of this account, which is held.

        The credentials are asked for again first: by the lookup, and after a 403 or 404 by their function, as they
        were after a 401. Where that fails, the probe has those from before.
        """
        assert self.refusals is not None  # noqa: S101  # it is held
        self.must_ask = True
        if self.refusals.may_be_of_devices and isinstance(self.auth, ReadyAuth):
            with suppress(SecretUnavailableError):
                # The path is of no importance: the answer says only with which token or secret one would be sent.
                self.auth.refused(self.auth.headers("GET", "/") or ())
        self.refusals.start_probe(device_id)

    @property
    def label(self) -> str:
        """Name for people, without a secret, such as ``key k123…`` or ``device dev-1``."""
        if self.device_id is not None:
            return f"device {self.device_id}"
        if isinstance(self.auth, ReadyAuth):
            return self.auth.label
        return "no credentials" if self.auth is None else type(self.auth).__name__

    @property
    def is_held(self) -> bool:
        """Whether only probes are sent."""
        return self.refusals is not None and self.refusals.is_held

    def may_probe(self, now_s: float) -> bool:
        """Return whether a request may be sent: any if the account is not held, else the next probe."""
        return self.refusals is None or self.refusals.next_probe_s <= now_s


class Accounts:
    """The accounts of a client: here one for all requests, in ``DeviceAccounts`` one for each device.

    Attributes:
        are_several: Devices have credentials of their own.
        on_replaced: Called with an account that no device has any more.
        on_outdated: Called when devices of a held account have to be looked up again.
    """

    are_several = False

    def __init__(self, auth: AnyAuth | None) -> None:
        self._default = Account(auth)
        self.on_replaced: Callable[[Account], None] = lambda _: None
        self.on_outdated: Callable[[], None] = lambda: None

    def known(self, device_id: str | None) -> Account | None:  # noqa: ARG002  # as in the subclass
        """Return the account of a device, or of what concerns no device; None if it has to be looked up."""
        return self._default

    def last(self, device_id: str | None) -> Account | None:
        """Return the account of a device as it was looked up last, although it may have to be looked up again."""
        return self.known(device_id)

    async def find(self, device_id: str | None, *, deadline_s: float | None = None) -> Account:  # noqa: ARG002
        """Return the account of a device; looks its credentials up again, until ``deadline_s`` by the loop's clock.

        Where the lookup fails or takes longer, the account has the credentials from before, if there are any.
        """
        self._default.must_ask = False
        return self._default

    def refresh(self) -> None:
        """Ask for all credentials again, now or when they are needed next.

        Raises:
            SecretUnavailableError: A function that returns a secret failed; the others were called all the same.
        """
        self._default.refresh()

    def outdate(self, device_id: str) -> None:
        """Look the credentials of a device up again when they are needed next, if they are its own."""


@define(eq=False)
class Refusals:
    """Refusals of an account since its last success.

    Attributes:
        is_held: Only probes are sent.
        next_probe_s: Time of the next probe; infinite while one is in flight.
        may_be_of_devices: The account is held, and what was refused last got a 403 or 404, for which the credentials
            have not been asked for again.
    """

    is_held: bool = False
    may_be_of_devices: bool = False
    next_probe_s: float = -math.inf
    _delay_s: float = FIRST_PROBE_S
    _probe: str | None = None  # the device whose request is the probe, until the next one
    _started_by: str | None = None  # the device for whose refusal the account is held
    _devices: set[str] = field(factory=set)  # refused with 403 or 404 in a row
    _odd_devices: set[str] = field(factory=set)  # refused although others of their account got through

    def refused(self, device_id: str | None, *, is_certain: bool, now_s: float) -> bool:
        """Note a refusal; True if the account is held from now on.

        Args:
            device_id: The device; None for a request that concerns no device.
            is_certain: It is of the credentials. A 403 or 404 may be of the device.
            now_s: When.
        """
        if self.is_held:
            if device_id is not None and device_id == self._probe:
                self._probe = None
                self._delay_s = min(2 * self._delay_s, MAX_PROBE_S)
                self.next_probe_s = now_s + self._delay_s
                self.may_be_of_devices = not is_certain
            return False
        if is_certain:
            if device_id in self._odd_devices:
                return False
        else:
            self._devices.add(device_id or "")
            if len(self._devices) < _DEVICES_THAT_TELL:
                return False
        self.is_held = True
        self.may_be_of_devices = not is_certain
        self._started_by = device_id if is_certain else None
        self._delay_s = FIRST_PROBE_S
        self.next_probe_s = now_s + FIRST_PROBE_S
        return True

    def start_probe(self, device_id: str) -> None:
        """Note that the next request of a device is the probe."""
        self._probe = device_id
        self.may_be_of_devices = False
        self.next_probe_s = math.inf

    def probe_ended(self, device_id: str | None, *, now_s: float) -> None:
        """Allow the next probe, if a request of this device was the probe, whatever its outcome."""
        if self.is_held and device_id == self._probe and self.next_probe_s == math.inf:
            self.next_probe_s = now_s + self._delay_s

    def probe_at(self, now_s: float) -> None:
        """Allow the next probe at ``now_s``: the credentials may be correct now."""
        if not self.is_held:
            return
        if self.next_probe_s != math.inf:
            self.next_probe_s = now_s
            self._delay_s = FIRST_PROBE_S
        else:
            # The probe in flight has the credentials from before: if it is refused, the next one comes soon.
            self._delay_s = FIRST_PROBE_S / 2

    def succeeded(self, device_id: str | None) -> bool:
        """Note a success; True if the account was held until now."""
        self._devices.clear()
        self._odd_devices.discard(device_id or "")
        if not self.is_held:
            return False
        self.is_held = False
        self.next_probe_s = -math.inf
        if self._started_by not in {None, device_id}:
            # One device that is refused while others get through must not hold them again and again.
            if len(self._odd_devices) >= _MAX_ODD_DEVICES:
                self._odd_devices.clear()
            self._odd_devices.add(self._started_by or "")
        return True

    @property
    def are_over(self) -> bool:
        """Whether nothing has to be remembered."""
        return not (self.is_held or self._devices or self._odd_devices)
