"""Credentials of each device: the public class, and the accounts that a client keeps for it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import islice
from typing import NoReturn, TypeAlias
from weakref import WeakValueDictionary

import httpx

from printos_async._errors import ConfigurationError

from .account import Account, Accounts
from .base import AnyAuth, SecretUnavailableError, is_cancelled

_Found: TypeAlias = AnyAuth | None
Lookup: TypeAlias = Mapping[str, AnyAuth] | Callable[[str], _Found] | Callable[[str], Awaitable[_Found]]

# Accounts that a client keeps at most, as many as devices in one list; the oldest go first.
MAX_ACCOUNTS = 250_000


class DeviceCredentials(httpx.Auth):
    """Each device's own credentials.

    PrintOS gives every provisioned device a login and a password of its own, or a site has several keys. A request
    that concerns a device is signed with that device's credentials and no others.

    What ``lookup`` returns is kept until PrintOS refuses it; then ``lookup`` is asked again. It is also asked again,
    at the pace of the probes, for a device without credentials, so that credentials can be added and rotated without
    a restart. One object that is returned for several devices is one account: one login serves them all.

    Only ``PrintOSClient`` can use it: other httpx clients do not know which device a request concerns.

    Args:
        lookup: A mapping from device identifier to ``Auth``, such as ``HmacAuth`` or ``SessionTokenAuth``; or a
            function or coroutine function that returns one, or None for a device without. A function is called on the
            event loop and must not block for long. What it raises is reported by the name of its class, as
            ``MissingCredentialsError``.
        default: Signs what concerns no single device, such as ``list_devices``, and devices without credentials of
            their own. None: those requests fail with ``MissingCredentialsError``.

    Raises:
        ConfigurationError: ``lookup`` is neither a mapping nor callable, or ``default`` is no ``httpx.Auth``.
    """

    def __init__(self, lookup: Lookup, *, default: AnyAuth | None = None) -> None:
        if not isinstance(lookup, Mapping) and not callable(lookup):
            raise ConfigurationError(f"lookup must be a mapping or a function, not {type(lookup).__name__}")
        if isinstance(default, DeviceCredentials) or not isinstance(default, AnyAuth | None):
            raise ConfigurationError(
                f"default must be HmacAuth, SessionTokenAuth or another httpx.Auth, not {type(default).__name__}"
            )
        self._lookup: Callable[[str], object] = lookup.get if isinstance(lookup, Mapping) else lookup
        self.default = default

    def __repr__(self) -> str:
        return f"{type(self).__name__}(default={getattr(self, 'default', None)!r})"

    @property
    def account(self) -> str:
        """The default's name; the devices' credentials are told apart by their devices."""
        default = "" if self.default is None else f", {getattr(self.default, 'account', '')}"
        return f"device credentials{default}"

    async def find(self, device_id: str) -> AnyAuth | str | None:
        """Return the credentials of a device, None without, or as a text why the lookup failed."""
        try:
            found = self._lookup(device_id)
            if inspect.isawaitable(found):
                found = await found
            failure = ""
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            # Something that the lookup waits for was cancelled, not the request.
            failure = type(error).__name__
        except Exception as error:  # noqa: BLE001  # the caller's function: a vault, a database
            failure = type(error).__name__  # its text may hold a secret
        if failure:  # outside the handler, so that nothing is chained to it
            if is_cancelled():
                raise asyncio.CancelledError  # the lookup has made something else of it
            return f"the lookup of its credentials failed: {failure}"
        if isinstance(found, DeviceCredentials) or not isinstance(found, AnyAuth | None):
            return f"the lookup of its credentials returned {type(found).__name__}, not HmacAuth or SessionTokenAuth"
        return found

    def auth_flow(self, request: httpx.Request) -> NoReturn:  # noqa: ARG002
        """Refuse: the device of a request is not known here."""
        raise ConfigurationError(
            "DeviceCredentials works in PrintOSClient only; give httpx one device's credentials"
        )


class DeviceAccounts(Accounts):
    """The accounts of ``DeviceCredentials``, by device, as far as they were looked up.

    Attributes:
        max_accounts: Devices whose accounts are kept at most, beside those of held accounts.
    """

    are_several = True

    def __init__(self, credentials: DeviceCredentials, *, max_accounts: int = MAX_ACCOUNTS) -> None:
        super().__init__(credentials.default)
        self._credentials = credentials
        self.max_accounts = max_accounts
        if credentials.default is None:
            self._default.problem = (
                "DeviceCredentials has no default, which signs what concerns no single device"
            )
        self._known: dict[str, Account] = {}
        # Devices that have to be looked up again, with the credentials that they keep if that fails. An account of one
        # device has ``must_ask`` for this; the devices of a shared one may get different credentials.
        self._outdated: dict[str, Account] = {}
        # One object for several devices is one account. The account keeps the object, and so its id, alive.
        self._by_auth: WeakValueDictionary[int, Account] = WeakValueDictionary()
        if credentials.default is not None:
            self._by_auth[id(credentials.default)] = self._default

    def known(self, device_id: str | None) -> Account | None:
        """As ``Accounts.known``."""
        return self._default if device_id is None else self._known.get(device_id)

    def last(self, device_id: str | None) -> Account | None:
        """As ``Accounts.last``."""
        return self.known(device_id) or self._outdated.get(device_id or "")

    async def find(self, device_id: str | None, *, deadline_s: float | None = None) -> Account:
        """As ``Accounts.find``."""
        if device_id is None:
            return await super().find(None)
        found: AnyAuth | str | None = "the lookup of its credentials took longer than timeout_s"
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline_s):
                found = await self._credentials.find(device_id)
        return self._found(device_id, found)

    def refresh(self) -> None:
        """As ``Accounts.refresh``: functions that return secrets now, the lookup for each device when it is next sent."""
        problem = ""
        for account in {self._default, *self._known.values(), *self._outdated.values()}:
            account.must_ask = True
            try:
                account.refresh()
            except SecretUnavailableError as error:
                problem = str(error)
        self._outdate(lambda device_id, account: account.device_id != device_id)
        if problem:
            raise SecretUnavailableError(problem)

    def outdate(self, device_id: str) -> None:
        """As ``Accounts.outdate``."""
        account = self._known.pop(device_id, None)
        if account is not None:
            self._outdated[device_id] = account

    def _found(self, device_id: str, found: AnyAuth | str | None) -> Account:
        known = self._known.get(device_id)
        if known is not None and not known.must_ask:
            return known  # another request asked at the same time: one object logs in
        before = self._outdated.pop(device_id, None) if known is None else known
        account = self._account(device_id, found, before)
        account.must_ask = False
        self._known[device_id] = account
        if account is not before:
            account.devices += 1
            if before is not None:
                self._left(before, asks_others=known is not None)
            self._limit()
        return account

    def _account(self, device_id: str, found: AnyAuth | str | None, before: Account | None) -> Account:
        auth = found if isinstance(found, AnyAuth) else None
        if auth is None and found is None and self._credentials.default is not None:
            return self._default
        if before is not None and before.auth is not None and (auth is before.auth or isinstance(found, str)):
            return before  # also where the lookup failed: the credentials may be good, and are asked for when refused
        shared = None if auth is None else self._by_auth.get(id(auth))
        if shared is not None and shared.auth is auth:
            if shared is not self._default:
                shared.device_id = None
            return shared
        if before is None or before.device_id != device_id:
            account = Account(auth, device_id)
        else:  # the account stays held until its new credentials are accepted
            account = before
            self._by_auth.pop(id(account.auth), None)  # another object may get its id
            account.auth = auth
        account.problem = found if isinstance(found, str) else ""
        if auth is not None:
            self._by_auth[id(auth)] = account
        elif not account.problem:
            account.problem = "there are no credentials for this device, and no default"
        return account

    def _limit(self) -> None:
        """Forget the oldest devices beyond the bound."""
        if len(self._known) <= self.max_accounts:
            return
        # Several at once: the first key of a dictionary is the slower to find, the more were deleted before it.
        for oldest in list(islice(self._known, max(1, self.max_accounts // 100))):
            evicted = self._known.pop(oldest)
            if evicted.is_held:  # forgotten, it would be refused again at once
                self._known[oldest] = evicted
            else:
                self._left(evicted, asks_others=False)

    def _left(self, account: Account, *, asks_others: bool) -> None:
        """Note that a device has left an account. Others that share it may have got other credentials too."""
        account.devices -= 1
        if not account.devices:
            self.on_replaced(account)
        elif asks_others and account.device_id is None and (account is not self._default or account.is_held):
            self._outdate(lambda _, each: each is account)
            self.on_outdated()
        account.was_left = account.is_held

    def _outdate(self, is_outdated: Callable[[str, Account], bool]) -> None:
        for device_id in [each for each, account in self._known.items() if is_outdated(each, account)]:
            self.outdate(device_id)
        for oldest in list(islice(self._outdated, max(0, len(self._outdated) - self.max_accounts))):
            self._left(self._outdated.pop(oldest), asks_others=False)
