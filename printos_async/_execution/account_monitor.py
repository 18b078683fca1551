"""Account monitor: holds the accounts whose credentials PrintOS refuses, and announces it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from printos_async._auth.account import Refusals
from printos_async._errors import MissingCredentialsError, ResponseDecodeError, StatusError
from printos_async._events import AccountHeld, AccountResumed

from .retry import is_proxy_refusal, is_transient

if TYPE_CHECKING:
    from printos_async._api.requests import Call
    from printos_async._auth import Account, Accounts
    from printos_async._errors import APIError
    from printos_async._events import Hooks

# Of the status code alone: 401 Unauthorized, 407 Proxy Authentication Required; a redirect leads to a login page.
_REFUSALS = frozenset({401, 407, *range(300, 400)})


class AccountWatcher(Protocol):
    """Waits until refused credentials are accepted again, and receives a notice when that may be so."""

    def account_resumed(self, account: Account) -> None:
        """Send what waits for an account."""

    def waits_for(self, account: Account) -> bool:
        """Return whether something waits for a held account."""

    def probes_due(self) -> None:
        """Probe the held accounts, and look again for the accounts of the devices that wait for them."""


class AccountMonitor:
    """Holds the accounts of one client, for its pushers: a refusal of credentials says nothing about a status.

    Single calls and bulk pushes fail at once and are not held, but what becomes of them counts while there is a
    pusher.

    Attributes:
        troubled: The accounts with refusals since their last success, held or not.
        held: Number of accounts that are held.
        are_several: Devices have credentials of their own.
        watchers: Receive the notices; without one no account is held.
    """

    def __init__(self, accounts: Accounts, hooks: Hooks) -> None:
        self._accounts = accounts
        self._hooks = hooks
        self.watchers: set[AccountWatcher] = set()
        self.troubled: set[Account] = set()
        self.held = 0
        self.are_several = accounts.are_several
        accounts.on_replaced = self._release
        accounts.on_outdated = self._probes_due

    def is_held(self, device_id: str) -> bool:
        """Return whether a device's account is held."""
        return self.of(device_id) is not None

    def of(self, device_id: str) -> Account | None:
        """Return the account of a device, if it is held."""
        account = self._accounts.known(device_id)
        return account if account is not None and account.is_held else None

    def is_default(self, account: Account) -> bool:
        """Return whether an account is that of the devices without credentials of their own."""
        return self.are_several and account is self._accounts.known(None)

    def is_login_of_one(self, call: Call, error: APIError) -> bool:
        """Return whether the login of one account of many failed, which says little about the host."""
        return self.are_several and error.path != call.path

    def keeps(self, call: Call, error: APIError) -> bool:
        """Return whether a failed status waits because its account is refused, rather than be given up."""
        return is_refusal(call, error) or (
            _may_be_refusal(call, error) and self.is_held(call.device_id or "")
        )

    def failed(self, call: Call, error: APIError) -> None:
        """Note a failed attempt; it may hold its account."""
        is_certain = is_refusal(call, error)
        if not is_certain and not _may_be_refusal(call, error):
            return
        account = self._accounts.last(call.device_id)
        # Without credentials for what concerns no device, nothing that waits was refused, nor would a status be the probe.
        if account is None or (call.device_id is None and isinstance(error, MissingCredentialsError)):
            return
        account.must_ask = account.must_ask or is_certain
        if not self.watchers:
            return
        self.troubled.add(account)
        if account.refusals is None:
            account.refusals = Refusals()
        now_s = asyncio.get_running_loop().time()
        if account.refusals.refused(call.device_id, is_certain=is_certain, now_s=now_s):
            self.held += 1
            self._hooks.emit(AccountHeld(account.label, type(error).__name__, getattr(error, "status", None)))

    def succeeded(self, call: Call) -> None:
        """Note a success. To be called only while there are ``troubled`` accounts."""
        account = self._accounts.last(call.device_id)
        if account is None or account.refusals is None:
            return
        if account.refusals.succeeded(call.device_id):
            self._resumed(account)
        if account.refusals.are_over:
            account.refusals = None
            self.troubled.discard(account)

    def refresh(self) -> None:
        """Ask for all credentials again, and probe held accounts now; those that nothing waits for are held no longer.

        Raises:
            SecretUnavailableError: A function that returns a secret failed.
        """
        try:
            self._accounts.refresh()
        finally:
            now_s = asyncio.get_running_loop().time()
            for account in tuple(self.troubled):
                if account.is_held and not self._is_waited_for(account):
                    self._release(account)  # there is nothing to probe with
                elif account.refusals is not None:
                    account.refusals.probe_at(now_s)
            self._probes_due()

    def outdate(self, device_id: str) -> None:
        """Look a device's credentials up again when it is sent next, if they are its own."""
        self._accounts.outdate(device_id)

    def end_unused_hold(self, account: Account) -> None:
        """End the hold of an account that devices have left, if nothing waits for it any more."""
        if account.was_left and account.is_held and not self._is_waited_for(account):
            self._release(account)

    def _is_waited_for(self, account: Account) -> bool:
        return any(watcher.waits_for(account) for watcher in self.watchers)

    def _probes_due(self) -> None:
        for watcher in tuple(self.watchers):
            watcher.probes_due()

    def _release(self, account: Account) -> None:
        self.troubled.discard(account)
        was_held, account.refusals, account.was_left = account.is_held, None, False
        if was_held:
            self._resumed(account)

    def _resumed(self, account: Account) -> None:
        self.held -= 1
        self._hooks.emit(AccountResumed(account.label))
        for watcher in tuple(self.watchers):
            watcher.account_resumed(account)


def is_refusal(call: Call, error: APIError) -> bool:
    """Return whether credentials were refused, the proxy's too, or are missing: the failure says nothing about the status.

    Source: RFC 9110, sections 15.4, 15.5.2 and 15.5.8.
    """
    if isinstance(error, StatusError):
        # Another path: a login, which has failed for a reason of its own.
        return error.status in _REFUSALS or (error.path != call.path and not is_transient(error))
    if isinstance(error, ResponseDecodeError):
        return error.path != call.path and not error.from_intermediary
    return isinstance(error, MissingCredentialsError) or is_proxy_refusal(error)


def _may_be_refusal(call: Call, error: APIError) -> bool:
    """Return whether the device or its account was refused: a 403 or 404."""
    return isinstance(error, StatusError) and error.status in {403, 404} and call.device_id is not None
