"""PrintOSClient: the operations of the specification as coroutines."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, Self

from ._api.fields import fields_of
from ._config import PRODUCTION_URL, auth_from_env, transport_factory
from ._delivery.bulk import Statuses, push_all
from ._delivery.device_state import DEFAULT_AMBIGUITY_S
from ._delivery.settings import PusherSettings, require_outbox
from ._delivery.spooler import Spooler
from ._execution.channel import Channel
from ._execution.listing import list_all
from ._execution.provisioning import ensure_all, provision_all
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
from ._transport.proxy_url import ProxyUrl, proxy_from_env

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import httpx
    import httpx2

    from ._config import Verify
    from ._delivery.pusher import StatusPusher
    from ._events import Hook
    from ._execution.concurrency import ConcurrencyLimit
    from ._execution.retry import RetryPolicy
    from .outbox import Outbox


class PrintOSClient:
    """Asyncio client of the HP PrintOS Device API.

    One client serves any number of tasks of one event loop. Use it as an asynchronous context manager, or call
    ``aclose``. After that, and in another event loop or process, its methods raise ``ClientClosedError``. Redirects
    are not followed, cookies are not stored, and only ``from_env`` reads environment variables for proxies.

    Args:
        base_url: URL of PrintOS. Its path, if any, is put in front of the path of every operation, and is signed with
            it.
        auth: ``HmacAuth``, ``SessionTokenAuth``, any other ``Auth`` of httpx or httpx2, ``DeviceCredentials`` if each
            device has credentials of its own, or None to send none.
        account: Name of the account, such as ``site-7``. An outbox stores the statuses of each account apart; a named
            account stays the same when its key, login or host changes. Without a name the account follows from base
            URL and credentials. Programs that share statuses in an outbox must pass the same name.
        timeout_s: Seconds for each attempt, from connecting to the last byte; waiting for a permit does not count.
        retry: Which failures are retried, and when.
        limit: How many requests are in flight at once. Further ones wait for a permit.
        max_rate_per_s: Maximum number of requests per second, 0.1 or more, for a host that limits the rate. Logins do
            not count. None for no maximum.
        transport: Replaces the default transport, for HTTP/2, SOCKS proxies or mocks: any ``AsyncBaseTransport`` of
            httpx or httpx2. The client does not close it. It has its own TLS and proxy settings, so ``verify`` and
            ``proxy`` are refused.
        verify: False turns off verification of the server's certificate; a context replaces the default one. A
            function that returns a context is called for each new connection.
        proxy: URL of an HTTP proxy, ``http://user:password@host:port``; ``https://`` if the proxy itself uses TLS. User
            and password are percent-encoded.
        hooks: Functions that receive the events.
        max_body_bytes: Maximum size of an answer's body, before and after decompression. Of an error, and of the answer
            to a status, at most 64 KiB are read.
        allow_insecure_http: Allow plain HTTP to another machine; to loopback it is always allowed.

    Raises:
        ConfigurationError: A setting is missing, contradictory or unsafe.
    """

    def __init__(
        self,
        base_url: str = PRODUCTION_URL,
        *,
        auth: httpx.Auth | httpx2.Auth | None,
        account: str | None = None,
        timeout_s: float = 10.0,
        retry: RetryPolicy | None = None,
        limit: ConcurrencyLimit | None = None,
        max_rate_per_s: float | None = None,
        transport: httpx.AsyncBaseTransport | httpx2.AsyncBaseTransport | None = None,
        verify: Verify = True,
        proxy: str | None = None,
        hooks: Iterable[Hook] = (),
        max_body_bytes: int = 64 * 1024 * 1024,
        allow_insecure_http: bool = False,
    ) -> None:
        proxy_url = ProxyUrl(proxy)
        del proxy  # some tracebacks show the values of locals
        self._channel = Channel(
            base_url,
            auth=auth,
            account=account,
            timeout_s=timeout_s,
            retry=retry,
            limit=limit,
            max_rate_per_s=max_rate_per_s,
            make_transport=transport_factory(transport, verify, proxy_url),
            hooks=hooks,
            max_body_bytes=max_body_bytes,
            allow_insecure_http=allow_insecure_http,
        )

    @classmethod
    def from_env(
        cls,
        *,
        timeout_s: float = 10.0,
        retry: RetryPolicy | None = None,
        limit: ConcurrencyLimit | None = None,
        hooks: Iterable[Hook] = (),
    ) -> Self:
        """Return a client with the settings in environment variables.

        ``PRINTOS_BASE_URL`` is the URL of PrintOS, by default the production system. ``PRINTOS_KEY`` with
        ``PRINTOS_SECRET``, or ``PRINTOS_LOGIN`` with ``PRINTOS_PASSWORD``, are the credentials. ``PRINTOS_ACCOUNT`` is
        ``account``. ``PRINTOS_PROXY`` is the URL of a proxy. If it is not set, ``HTTPS_PROXY`` is used, or for a base
        URL of plain HTTP ``http_proxy``, except for hosts in ``NO_PROXY`` and for this machine.

        Raises:
            ConfigurationError: No pair, both pairs or half a pair of credentials is set; or a URL is not valid.
        """
        base_url = os.environ.get("PRINTOS_BASE_URL") or PRODUCTION_URL
        auth = auth_from_env(os.environ)
        account = os.environ.get("PRINTOS_ACCOUNT") or None
        return cls(
            base_url,
            auth=auth,
            account=account,
            timeout_s=timeout_s,
            retry=retry,
            limit=limit,
            proxy=proxy_from_env(base_url),
            hooks=hooks,
        )

    def __repr__(self) -> str:
        channel = getattr(self, "_channel", None)  # None while a traceback shows a setting that is refused
        return f"{type(self).__name__}({'' if channel is None else repr(channel.base_url)})"

    async def __aenter__(self) -> Self:
        self._channel.attempts.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; calls in flight end with a ``TransportError``. The second time does nothing."""
        await self._channel.attempts.aclose()

    def refresh_credentials(self) -> None:
        """Ask for the credentials again, after they were changed.

        Functions that return a secret are called again. ``DeviceCredentials`` is asked again for every device when it
        is next sent to, and at once for the devices that wait. Accounts that PrintOS has refused are probed at once.
        Without this, what was refused is asked for again at the next refusal or probe, a minute later at most; of more
        than 1,000 devices that wait for a refused default, 1,000 with each probe. That also holds for devices of refused
        accounts that a worker has given back to a shared outbox, which this does not reach.

        Raises:
            ConfigurationError: A function that returns a secret failed. The client continues with the previous secret.
        """
        self._channel.executor.accounts.refresh()

    async def list_devices(self) -> list[PrintDevice]:
        """Return the provisioned devices.

        A field that cannot be read (a date, a null, a value of a wrong type) is ``UNSET``. Its raw value is in the
        device's ``additional_properties``, and hooks receive it in a ``FieldUnreadable``. A device without a field that
        the specification requires makes the call fail. If the specification has pages, all of them are read.

        Raises:
            APIError: The call failed after its retries, or the answer is not a list of at most 250,000 devices, or has
                more than 10,000 pages or a page that repeats.

        Source: operation ``listDevices``.
        """
        return await list_all(self._channel)

    async def provision_device(
        self,
        *,
        model: str | Unset = UNSET,
        serial_number: str | Unset = UNSET,
        location: str | Unset = UNSET,
        **others: Any,
    ) -> PrintDevice:
        """Register a device.

        PrintOS replaces a device of the same model and serial number, so the request is sent a second time only if it
        is certain that nothing reached the server. If the error's ``may_have_arrived`` is true, look for the serial
        number in ``list_devices()`` first, as ``provision_devices`` does.

        Args:
            model: The device's model, such as ``Indigo 12000``. A value that is ``UNSET`` is not sent; None is refused.
            serial_number: Its serial number.
            location: Its location; any text.
            **others: Further fields of ``DeviceProvisionRequest``, after a regeneration.

        Raises:
            InvalidProvisionRequestError: A value cannot be sent, or a required one is missing. Nothing was sent.
            APIError: The call failed, or its answer is not a device.

        Source: operation ``provisionDevice``.
        """
        given = {"model": model, "serial_number": serial_number, "location": location, **others}
        unset = dict.fromkeys((field.attribute for field in fields_of(DeviceProvisionRequest)), UNSET)
        call = self._channel.operations.provision_device(DeviceProvisionRequest(**{**unset, **given}))
        return await self._channel.executor.run(call, self._channel.answers.provisioned)

    async def provision_devices(self, requests: Iterable[DeviceProvisionRequest]) -> list[ProvisionResult]:
        """Register many devices concurrently, and return one result for each request, in the same order.

        After an uncertain outcome the device is looked up in the device list before its request is repeated. A
        request without model or serial number cannot be looked up, and fails instead. A request that repeats the model
        and serial number of an earlier one fails as well. One failure does not stop the others. Cancelling does not
        revoke requests that were sent.
        """
        self._channel.attempts.open()
        return await provision_all(self._channel, requests)

    async def ensure_devices(self, requests: Iterable[DeviceProvisionRequest]) -> list[ProvisionResult]:
        """Register the devices that are missing, find the others, and return results as ``provision_devices`` does.

        The device list is read once, first. If it has a device with the request's model and serial number, the result
        is ``"found"`` with that device, even if its location differs. A request without model or serial number fails.

        Let only one process at a time register a fleet. If two register the same device, PrintOS replaces the first.

        Raises:
            APIError: The device list could not be read. Nothing was sent.
        """
        self._channel.attempts.open()
        return await ensure_all(self._channel, requests)

    async def update_device_status(self, device_id: DeviceId, status: DeviceStatusUpdate) -> None:
        """Send one status of one device.

        Overlapping calls for one device are not ordered: await them, or use ``push_statuses``. Cancelling withdraws a
        request that was not sent; a status that was sent may still be applied.

        Args:
            device_id: Identifier that PrintOS gave the device; 1 to 256 characters, no path separators.
            status: The status. ``pages_total`` is a life count in pages; the specification gives ``ink_level`` no
                unit. A field that is ``UNSET`` is not sent; None is refused.

        Raises:
            InvalidDeviceIdError: The identifier is unset, or would change the request's path. Nothing was sent.
            InvalidStatusError: The status cannot be sent as given. Nothing was sent.
            APIError: The call failed after its retries.

        Source: operation ``updateDeviceStatus``; PUT replaces, so a replay is safe. Any 2xx is a success.
        """
        call = self._channel.operations.update_device_status(device_id, status)
        await self._channel.executor.run(call, self._channel.answers.acknowledgement)

    async def push_statuses(
        self, statuses: Statuses, *, on_result: Callable[[PushResult], object] | None = None
    ) -> PushReport:
        """Send many statuses concurrently; one device's failure does not stop the others.

        At most one request per device is in flight, and the statuses of a device are sent in the order given. A status
        that still waits when a newer one comes is superseded and not sent. At most 1,024 devices wait at a time,
        besides those in flight. Cancelling withdraws the statuses that were not sent; requests in flight continue.

        Args:
            statuses: A mapping of device identifiers to statuses, or an iterable or asynchronous iterable of
                pairs or ``StatusPush``. A status is encoded when it is read: changing it later changes nothing.
            on_result: Called with each result, on the event loop. An exception that it raises ends the push and is
                raised here.

        Returns:
            The report. A status that cannot be sent, such as one with NaN, is a failed result.

        Raises:
            InvalidStatusError: An item of the iterable is neither a pair nor a ``StatusPush``. Like an exception of the
                iterable itself, it is raised after all earlier statuses are settled.
        """
        self._channel.attempts.open()
        return await push_all(self._channel, statuses, on_result)

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

        Args:
            outbox: Stores statuses until they are sent. ``SqlOutbox``: they survive the end of the process, and several
                processes share the work. ``MemoryOutbox``: unsent statuses pass from one pusher to the next.
            consistency: How to continue after an uncertain write, such as a timeout. ``"eventual"``: the newest status
                is sent at once, and if the uncertain write had an older one, again after ``ambiguity_s``. ``"strict"``:
                the device is held for ``ambiguity_s``, so that an older status never overwrites a newer one.
            ambiguity_s: Seconds for which an uncertain write may still be applied; 5 by default.
            min_interval_s: Minimum seconds from one status of a device, sent or refused, to its next; statuses that
                come in between are coalesced. PrintOS asks for 60 to 120. Retries, and a status that replaces a failed
                one, do not wait for it.
            skip_unchanged: Skip a status equal to the last one sent; its result is ``"sent"`` with 0 attempts.
            unchanged_max_age_s: An equal status is sent all the same if the last one is older than this.
            max_pending_devices: Maximum number of devices with pending statuses, those of held accounts included. With a
                shared outbox, maximum number of devices that the pusher owns; it also owns at most 1,024, or four per
                permit if that is more.
            on_full: Whether ``put`` waits for room or raises ``PusherFullError``. A shared outbox always has room.
            deadline_s: Seconds after which a status that still waits fails with its last error; None for no deadline.
            drain_timeout_s: Maximum seconds for which leaving ``async with`` drains; None for as long as it takes.

        Raises:
            ConfigurationError: A setting is out of range.
        """
        settings = PusherSettings(
            consistency=consistency,
            ambiguity_s=ambiguity_s,
            min_interval_s=min_interval_s,
            skip_unchanged=skip_unchanged,
            unchanged_max_age_s=unchanged_max_age_s,
            max_pending_devices=max_pending_devices,
            on_full=on_full,
            deadline_s=deadline_s,
            drain_timeout_s=drain_timeout_s,
        )
        self._channel.attempts.open()
        return settings.make_pusher(self._channel, outbox)

    def spooler(self, outbox: Outbox) -> Spooler:
        """Return a spooler, an asynchronous context manager that accepts statuses into an outbox for workers to send.

        Raises:
            ConfigurationError: No account is named and ``auth`` has no attribute ``account``, or ``outbox`` is not an
                outbox.
        """
        require_outbox(outbox)
        return Spooler(outbox, self._channel.operations, tenant=self._channel.tenant)

    @property
    def account(self) -> str:
        """Fingerprint of the account, under which an outbox stores its statuses; 32 hexadecimal digits.

        It is made from the argument ``account``, or else from base URL and credentials.

        Raises:
            ConfigurationError: No account is named, and ``auth`` has no attribute ``account``.
        """
        return self._channel.tenant.account
