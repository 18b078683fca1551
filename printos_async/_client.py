"""PrintOSClient: the operations of the specification as coroutines."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Literal, Self

import httpx

from ._api.requests import Operations
from ._api.responses import Answers
from ._auth import DeviceAccounts, DeviceCredentials, SingleAccount
from ._checks import require_choice, require_number, require_type
from ._config import PRODUCTION_URL, account_of, auth_from_env, make_ssl_context, parse_base_url
from ._delivery.bulk import Statuses, push_all
from ._delivery.device_state import DeliveryPolicy
from ._delivery.outbox.selection import make_backend, require_outbox
from ._delivery.pusher import StatusPusher
from ._delivery.results import Reporter
from ._delivery.spooler import Spooler
from ._errors import ConfigurationError
from ._events import Hook, Hooks
from ._execution.attempt import AttemptRunner
from ._execution.concurrency import ConcurrencyLimit
from ._execution.executor import Executor
from ._execution.provisioning import ensure_all, provision_all
from ._execution.retry import RetryPolicy
from ._models import (
    UNSET,
    DeviceId,
    DeviceProvisionRequest,
    DeviceStatusUpdate,
    PrintDevice,
    ProvisionResult,
    PushReport,
    PushResult,
    Unset,
)
from ._transport import Http1Transport, HttpxTransport, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from .outbox import Outbox

# How long an uncertain write may still land. Proxies commonly give up on a queued request
# after 30 to 60 s, most much earlier; a longer time makes the end of a push wait longer after a timeout.
DEFAULT_AMBIGUITY_S = 5.0


class PrintOSClient:
    """Asyncio client of the HP PrintOS Device API.

    One client serves any number of tasks of one event loop. Make one in each event loop and each process; a
    client that is used in another one, or after ``aclose``, raises ``ClientClosedError``. Use it as an
    asynchronous context manager, or call ``aclose``.

    Args:
        base_url: Where PrintOS is, such as ``https://printos.api.hp.com``. A path is put in front of every
            operation's and is signed with it.
        auth: ``HmacAuth``, ``SessionTokenAuth``, any other ``httpx.Auth``, ``DeviceCredentials`` where each device
            has credentials of its own, or None to send none.
        timeout_s: Seconds for each attempt as a whole, connecting and a dribbling body included.
        retry: Which failures are tried again, and when.
        limit: How many requests are in flight at once. Calls beyond it wait for a permit; that time does not
            count against ``timeout_s``.
        transport: Carries the requests instead of the default transport: for proxies, HTTP/2, mocks, applications.
            It stays yours to close. It brings its own TLS, so ``verify`` is refused with it.
        verify: False turns the check of the server's certificate off; a context replaces the default one.
        hooks: Functions that receive the events.
        max_body_bytes: Bytes of an answer's body that are read at most, before and after decompression. Of an error,
            and of the answer to a status, never more than 64 KiB.
        allow_insecure_http: Allow plain HTTP to another machine; to loopback it is always allowed.

    Raises:
        ConfigurationError: A setting is missing, contradictory or unsafe.

    Redirects are never followed: the credentials would go along, and a PUT would become a GET. No cookie is
    kept. Environment variables for proxies are not read: pass ``httpx.AsyncHTTPTransport(proxy=...)``.
    """

    def __init__(
        self,
        base_url: str = PRODUCTION_URL,
        *,
        auth: httpx.Auth | None,
        timeout_s: float = 10.0,
        retry: RetryPolicy | None = None,
        limit: ConcurrencyLimit | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        verify: bool | ssl.SSLContext = True,
        hooks: Iterable[Hook] = (),
        max_body_bytes: int = 64 * 1024 * 1024,
        allow_insecure_http: bool = False,
    ) -> None:
        origin, base_path = parse_base_url(base_url, allow_insecure_http=allow_insecure_http)
        require_number("timeout_s", timeout_s, 0.001)
        require_number("max_body_bytes", max_body_bytes, 0, whole=True)
        require_type("auth", auth, httpx.Auth | None, "HmacAuth(key, secret) or another httpx.Auth")
        require_type("retry", retry, RetryPolicy | None, "RetryPolicy")
        require_type("limit", limit, ConcurrencyLimit | None, "ConcurrencyLimit")
        require_type("transport", transport, httpx.AsyncBaseTransport | None, "httpx.AsyncBaseTransport")
        require_type("verify", verify, bool | ssl.SSLContext, "bool or ssl.SSLContext")
        if transport is not None and verify is not True:
            raise ConfigurationError("verify does not reach into a transport; make the transport with it")
        self._base_url = f"{origin}{base_path}"
        self._auth = auth
        self._timeout_s = timeout_s

        def make_transport() -> Transport:
            if transport is not None:
                return HttpxTransport(transport)
            return Http1Transport(make_ssl_context=lambda: make_ssl_context(verify))

        self._hooks = Hooks(hooks)
        accounts = DeviceAccounts(auth) if isinstance(auth, DeviceCredentials) else SingleAccount(auth)
        self._attempts = AttemptRunner(
            origin=origin,
            accounts=accounts,
            hooks=self._hooks,
            make_transport=make_transport,
            timeout_s=timeout_s,
            max_body_bytes=max_body_bytes,
            allow_insecure_http=allow_insecure_http,
        )
        self._executor = Executor(
            self._attempts, retry=retry or RetryPolicy(), limit=limit or ConcurrencyLimit(), hooks=self._hooks
        )
        self._operations = Operations(base_path)
        self._answers = Answers(max_body_bytes=max_body_bytes, hooks=self._hooks)

    @classmethod
    def from_env(
        cls,
        *,
        timeout_s: float = 10.0,
        retry: RetryPolicy | None = None,
        limit: ConcurrencyLimit | None = None,
        hooks: Iterable[Hook] = (),
    ) -> Self:
        """Return a client that environment variables describe.

        ``PRINTOS_BASE_URL`` says where PrintOS is, the production system by default. ``PRINTOS_KEY`` with
        ``PRINTOS_SECRET``, or ``PRINTOS_LOGIN`` with ``PRINTOS_PASSWORD``, are the credentials.

        Raises:
            ConfigurationError: No credentials are set, or two kinds, or one by half.
        """
        base_url = os.environ.get("PRINTOS_BASE_URL") or PRODUCTION_URL
        auth = auth_from_env(os.environ)
        return cls(base_url, auth=auth, timeout_s=timeout_s, retry=retry, limit=limit, hooks=hooks)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._base_url!r})"

    async def __aenter__(self) -> Self:
        self._attempts.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; calls in flight end with a ``TransportError``. The second time does nothing."""
        await self._attempts.aclose()

    def refresh_credentials(self) -> None:
        """Ask for the credentials again, after they were changed.

        Functions that return a secret are called again, ``DeviceCredentials`` is asked again when a device is next
        sent to, and accounts that PrintOS has refused are probed at once. Without this the same happens at the next
        refusal or probe, a minute later at most.

        Raises:
            ConfigurationError: A function that returns a secret failed. The secret before is used on.
        """
        self._executor.accounts.refresh()

    async def list_devices(self) -> list[PrintDevice]:
        """Return the provisioned devices.

        A date that cannot be read, a null and a value of a wrong type leave their field ``UNSET``; the raw value
        is in the device's ``additional_properties`` and goes to the hooks as ``FieldUnreadable``.

        Raises:
            APIError: The call failed after its retries, or its answer is no device list or one of more than 250,000
                devices.
            ClientClosedError: The client was closed, or lives in another event loop or process.

        Source: operation ``listDevices``.
        """
        return await self._executor.run(self._operations.list_devices(), self._answers.device_list)

    async def provision_device(
        self, *, model: str | Unset = UNSET, serial_number: str | Unset = UNSET, location: str | Unset = UNSET
    ) -> PrintDevice:
        """Register a device.

        Sent a second time only where it is certain that nothing reached the server: PrintOS replaces a device
        of the same model and serial number. Where the error's ``may_have_arrived`` is true, look for the serial
        number in ``list_devices()`` first; ``provision_devices`` does so by itself.

        A value that is left out, or ``UNSET``, is not sent. None is refused.

        Args:
            model: The device's model, such as ``Indigo 12000``.
            serial_number: Its serial number.
            location: Where it stands; any text.

        Raises:
            InvalidProvisionRequestError: A value cannot be sent. Nothing was.
            APIError: The call failed, or its answer is no device.
            ClientClosedError: The client was closed, or lives in another event loop or process.

        Source: operation ``provisionDevice``.
        """
        request = DeviceProvisionRequest(model=model, serial_number=serial_number, location=location)
        return await self._executor.run(self._operations.provision_device(request), self._answers.provisioned)

    async def provision_devices(self, requests: Iterable[DeviceProvisionRequest]) -> list[ProvisionResult]:
        """Register many devices concurrently, within the client's limit; one failure does not stop the others.

        After an ambiguous outcome the device list is asked for the model and serial number before anything is
        sent again. A request without both cannot be looked up and fails instead, and so does one that repeats
        the model and serial number of an earlier one.

        Cancelling leaves the requests that were sent to the server; those that were not are not sent.

        Args:
            requests: What to register.

        Returns:
            One result for each request, in the same order.

        Raises:
            ClientClosedError: The client was closed, or lives in another event loop or process.
        """
        self._attempts.open()
        return await provision_all(self._executor, self._operations, self._answers, requests)

    async def ensure_devices(self, requests: Iterable[DeviceProvisionRequest]) -> list[ProvisionResult]:
        """Register the devices that are missing, and find those that are registered.

        The device list is read once, before anything is sent. A request whose model and serial number are in it
        is ``"found"``, with the device as it is registered: a location that differs stays as it was. The others
        are registered as ``provision_devices`` does. A request without both model and serial number cannot be
        looked up and fails, and so does one that repeats the model and serial number of an earlier one.

        Another process that registers the same device after the list was read is not noticed: PrintOS then
        replaces its device. Let one process at a time register a fleet.

        Cancelling leaves the requests that were sent to the server; those that were not are not sent.

        Args:
            requests: The devices that are to be registered.

        Returns:
            One result for each request, in the same order.

        Raises:
            APIError: The device list could not be read. Nothing was sent.
            ClientClosedError: The client was closed, or lives in another event loop or process.
        """
        self._attempts.open()
        return await ensure_all(self._executor, self._operations, self._answers, requests)

    async def update_device_status(self, device_id: DeviceId, status: DeviceStatusUpdate) -> None:
        """Send one status of one device.

        Calls of one device that overlap are not ordered: await them, or use ``push_statuses``. Cancelling
        withdraws a request that was not sent; one that was may still be applied.

        Args:
            device_id: Identifier that PrintOS gave the device; 1 to 256 characters, no path separators. The
                specification lets a ``PrintDevice`` come without one; unset, it is refused.
            status: The status; ``pages_total`` is a life count in pages. The specification gives ``ink_level``
                no unit: it is sent as given. A field that is ``UNSET`` is not sent; None is refused.

        Raises:
            InvalidDeviceIdError: The identifier would change the request's path. Nothing was sent.
            InvalidStatusError: The status cannot be sent as given. Nothing was sent.
            APIError: The call failed after its retries.
            ClientClosedError: The client was closed, or lives in another event loop or process.

        Source: operation ``updateDeviceStatus``; PUT replaces, so a replay is safe. Any 2xx is a success.
        """
        call = self._operations.update_device_status(device_id, status)
        await self._executor.run(call, self._answers.acknowledgement)

    async def push_statuses(
        self, statuses: Statuses, *, on_result: Callable[[PushResult], object] | None = None
    ) -> PushReport:
        """Send many statuses concurrently, within the client's limit.

        Of one device at most one request is in flight, and its statuses are sent in the order given. One that
        is still waiting when a newer one of its device comes is superseded and not sent. One device's failure
        does not stop the others. At most 1,024 devices wait at a time, besides those that the limit's ``maximum``
        allows in flight, whatever the length of ``statuses``.

        Cancelling withdraws what was not sent; what is in flight ends by itself.

        Args:
            statuses: A mapping of device identifiers to statuses, or an iterable or asynchronous iterable of
                pairs or ``StatusPush``. A status is encoded when it is read: changing it later changes nothing.
            on_result: Called with each result as it comes, on the event loop. What it raises ends the push and
                is raised here.

        Returns:
            The report. A status that cannot be sent, such as one with NaN, is a failed result.

        Raises:
            ClientClosedError: The client was closed, or lives in another event loop or process.
            InvalidStatusError: An item of the iterable is neither a pair nor a ``StatusPush``. Like an exception
                of the iterable itself it is raised after all that came before was sent.
        """
        self._attempts.open()
        return await push_all(
            self._executor,
            self._operations,
            self._answers,
            statuses,
            on_result,
            ambiguity_s=DEFAULT_AMBIGUITY_S,
        )

    def status_pusher(
        self,
        *,
        outbox: Outbox | None = None,
        consistency: Literal["eventual", "strict"] = "eventual",
        ambiguity_s: float = DEFAULT_AMBIGUITY_S,
        min_interval_s: float = 0.0,
        skip_unchanged: bool = False,
        unchanged_max_age_s: float = 3600.0,
        max_pending_devices: int = 100_000,
        on_full: Literal["wait", "raise"] = "wait",
        deadline_s: float | None = None,
        drain_timeout_s: float | None = 30.0,
    ) -> StatusPusher:
        """Return a pusher that lives as long as the service: ``async with printos.status_pusher() as pusher``.

        It outlasts outages: while nothing succeeds it probes the host once a second at most, and keeps each
        device's newest status until it is sent, superseded, refused for good or too late. A status that fails
        while others succeed is given up after the ``max_attempts`` of the retry policy. An intermediary's page,
        such as that of a captive portal, is an outage too. A pause that the host asks for holds for an hour at most; then
        the host is probed once a minute.

        Args:
            outbox: Where statuses are kept until they are sent: ``SqlOutbox`` for statuses that outlive the process,
                and for several processes that share the work. ``MemoryOutbox`` hands what was not sent from one
                pusher to the next in the same process. None for the pusher's own memory.
            consistency: What happens after an attempt whose write may still land later, such as a timeout.
                ``"eventual"``: the newest status goes out at once, and once more after ``ambiguity_s``, so that
                the device ends right. ``"strict"``: the device is held for ``ambiguity_s`` first, so that an
                older status never overwrites a newer one.
            ambiguity_s: Seconds for which a write with an unknown outcome may still land.
            min_interval_s: Seconds from one status of a device to its next, whether it was sent or refused; what comes
                between is coalesced. PrintOS asks for 60 to 120. Retries, and what replaces a
                status that failed, follow the backoff instead: in eventual mode the newest status goes out right after
                a lost answer.
            skip_unchanged: Leave out a status equal to the last one that was sent; its result is ``"sent"`` with
                0 attempts.
            unchanged_max_age_s: An equal status is sent all the same if the last one is older than this.
            max_pending_devices: Devices with something to be done, at most. Of a shared outbox, those that the
                pusher owns at once, and then no more than 1,024, or four for each request that the limit's
                ``maximum`` allows if that is more: what one owns the others cannot send.
            on_full: Whether ``put`` waits for room or raises ``PusherFullError``. A shared outbox has room.
            deadline_s: Seconds in which a status must be delivered; one that still waits then fails with the
                last cause. None for no deadline.
            drain_timeout_s: Seconds for which leaving ``async with`` drains at most; None for as long as it takes.

        Raises:
            ConfigurationError: A setting is out of range.
            ClientClosedError: The client was closed, or lives in another event loop or process.
        """
        for name, value in {"ambiguity_s": ambiguity_s, "min_interval_s": min_interval_s}.items():
            require_number(name, value, 0)
        require_number("unchanged_max_age_s", unchanged_max_age_s, 0)
        require_number("max_pending_devices", max_pending_devices, 1, whole=True)
        if deadline_s is not None:
            require_number("deadline_s", deadline_s, 0)
        if drain_timeout_s is not None:
            require_number("drain_timeout_s", drain_timeout_s, 0)
        require_choice("consistency", consistency, ("eventual", "strict"))
        require_choice("on_full", on_full, ("wait", "raise"))
        self._attempts.open()
        policy = DeliveryPolicy(
            patient=True,
            strict=consistency == "strict",
            ambiguity_s=ambiguity_s,
            min_interval_s=min_interval_s,
            unchanged_max_age_s=unchanged_max_age_s if skip_unchanged else 0.0,
            deadline_s=deadline_s,
        )
        reporter = Reporter(self._executor.hooks)
        backend = make_backend(
            outbox,
            self._executor,
            self._operations,
            answers=self._answers,
            policy=policy,
            reporter=reporter,
            tenant="" if outbox is None else self.account,
            timeout_s=self._timeout_s,
            max_pending_devices=max_pending_devices,
            on_full=on_full,
        )
        return StatusPusher(
            self._executor, self._operations, backend, reporter, drain_timeout_s=drain_timeout_s
        )

    def spooler(self, outbox: Outbox) -> Spooler:
        """Return a spooler, which accepts statuses into an outbox for a worker elsewhere to send.

        Use it as an asynchronous context manager: ``async with printos.spooler(SqlOutbox(url)) as spooler``.

        Raises:
            ConfigurationError: The authentication has no ``account``, or ``outbox`` is not an outbox.
        """
        require_outbox(outbox)
        return Spooler(outbox, self._operations, tenant=self.account)

    @property
    def account(self) -> str:
        """Fingerprint of base URL and credentials, to which an outbox binds what it keeps; 32 hexadecimal digits.

        Raises:
            ConfigurationError: The authentication has no ``account``.
        """
        return account_of(self._base_url, self._auth)
