"""PrintOSClient: the operations of the specification as coroutines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from ._config import PRODUCTION_URL, settings_from_env, transport_factory
from ._delivery.bulk import Statuses, push_all
from ._delivery.device_state import DEFAULT_AMBIGUITY_S
from ._delivery.settings import PusherSettings, require_outbox
from ._delivery.spooler import Spooler
from ._execution.channel import Channel
from ._execution.listing import list_all
from ._execution.provisioning import provision_all
from ._models import UNSET, DeviceProvisionRequest, Unset, unset_fields
from ._transport.proxy_url import ProxyUrl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import httpx
    import httpx2

    from ._config import Verify
    from ._delivery.pusher import StatusPusher
    from ._events import Hook
    from ._execution.concurrency import ConcurrencyLimit
    from ._execution.retry import RetryPolicy
    from ._models import DeviceId, DeviceStatusUpdate, PrintDevice, ProvisionResult, PushReport, PushResult
    from .outbox import Outbox


class PrintOSClient:
    """Asyncio client of the HP PrintOS Device API.

    One client serves any number of tasks of one event loop. Use it as an asynchronous context manager, or call
    ``aclose``. After that, and in another event loop or process, its methods raise ``ClientClosedError``. Redirects
    are not followed, cookies are not stored, and only ``from_env`` reads environment variables for proxies. A setting
    that is missing, contradictory or unsafe raises ``ConfigurationError``.

    Args:
        base_url: URL of PrintOS. Its path, if any, precedes the path of every operation, and is signed with it.
        auth: ``HmacAuth``, ``SessionTokenAuth``, ``DeviceCredentials``, any other ``Auth`` of httpx or httpx2, or None.
        account: Name of the account, such as ``site-7``, under which an outbox stores its statuses. Programs that share
            statuses must pass the same. Without a name the account follows from base URL and credentials.
        timeout_s: Seconds for each attempt, from connecting to the last byte; waiting for a permit does not count.
        retry: Which failures are retried, and when.
        limit: How many requests are in flight at once; further ones wait for a permit.
        max_rate_per_s: Maximum number of requests per second, 0.1 or more; logins do not count. None for no maximum.
        transport: Any ``AsyncBaseTransport`` of httpx or httpx2, for HTTP/2, SOCKS proxies or mocks. The client does
            not close it. It has its own TLS and proxy settings, so ``verify`` and ``proxy`` are refused.
        verify: False to verify no certificate; a context; or a function that returns one for each new connection.
        proxy: URL of an HTTP proxy, ``http://user:password@host:port``, percent-encoded; ``https://`` for TLS to it.
        hooks: Functions that receive the events.
        max_body_bytes: Maximum size of an answer's body, also decompressed; of errors and answers to statuses, 64 KiB.
        allow_insecure_http: Allow plain HTTP to another machine; to loopback it is always allowed.
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

        ``PRINTOS_BASE_URL``, by default the production system; ``PRINTOS_KEY`` with ``PRINTOS_SECRET``, or
        ``PRINTOS_LOGIN`` with ``PRINTOS_PASSWORD``; ``PRINTOS_ACCOUNT``; ``PRINTOS_PROXY``, or else ``HTTPS_PROXY``
        (for plain HTTP ``http_proxy``), except for hosts in ``NO_PROXY`` and for this machine. Both pairs of
        credentials, none, half a pair, or a URL that is not valid raise ``ConfigurationError``.
        """
        return cls(**settings_from_env(), timeout_s=timeout_s, retry=retry, limit=limit, hooks=hooks)

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

        Functions that return a secret are called again, ``DeviceCredentials`` is asked again for every device, and
        refused accounts are probed at once. Without this, the next refusal or probe asks, a minute later at most. If a
        function fails, ``ConfigurationError`` is raised, and the client continues with the previous secret.
        """
        self._channel.executor.accounts.refresh()

    async def list_devices(self) -> list[PrintDevice]:
        """Return the provisioned devices, of all pages if there are pages (operation ``listDevices``).

        A field that cannot be read (a date, a null, a value of a wrong type) is ``UNSET``: its raw value is in the
        device's ``additional_properties``, and hooks receive a ``FieldUnreadable``.

        Raises:
            APIError: The call failed after its retries, a device lacks a field that the specification requires, or the
                answer is not a list, or has more than 250,000 devices or 10,000 pages, or a page that repeats.
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
        """Register a device (operation ``provisionDevice``).

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
        """
        given = {"model": model, "serial_number": serial_number, "location": location, **others}
        request = DeviceProvisionRequest(**{**unset_fields(DeviceProvisionRequest), **given})
        call = self._channel.operations.provision_device(request)
        return await self._channel.executor.run(call, self._channel.answers.provisioned)

    async def provision_devices(self, requests: Iterable[DeviceProvisionRequest]) -> list[ProvisionResult]:
        """Register many devices concurrently, and return one result for each request, in the same order.

        After an uncertain outcome the device is looked up in the device list before its request is repeated; without
        model or serial number it cannot be looked up, and the request fails. So does one that repeats the model and
        serial number of an earlier one. One failure does not stop the others. Cancelling does not revoke what was sent.
        """
        self._channel.attempts.open()
        return await provision_all(self._channel, requests)

    async def ensure_devices(self, requests: Iterable[DeviceProvisionRequest]) -> list[ProvisionResult]:
        """Register the devices that are missing, find the others, and return results as ``provision_devices`` does.

        The device list is read once, first; if that fails, its ``APIError`` is raised. If the list has a device with
        the request's model and serial number, the result is ``"found"``, whatever its location. A request without model
        or serial number fails. If two processes register the same device at a time, PrintOS replaces the first.
        """
        self._channel.attempts.open()
        return await provision_all(self._channel, requests, only_missing=True)

    async def update_device_status(self, device_id: DeviceId, status: DeviceStatusUpdate) -> None:
        """Send one status of one device (operation ``updateDeviceStatus``).

        Overlapping calls for one device are not ordered: await them, or use ``push_statuses``. Cancelling withdraws a
        request that was not sent; a status that was sent may still be applied.

        Args:
            device_id: Identifier that PrintOS gave the device; 1 to 256 characters, no path separators.
            status: The status. ``pages_total`` is a life count in pages; the specification gives ``ink_level`` no
                unit. A field that is ``UNSET`` is not sent; None is refused.

        Raises:
            InvalidDeviceIdError: The identifier is unset, or would change the request's path. Nothing was sent.
            InvalidStatusError: The status cannot be sent as given. Nothing was sent.
            APIError: The call failed after its retries, which are safe, because a PUT replaces. Any 2xx is a success.
        """
        call = self._channel.operations.update_device_status(device_id, status)
        await self._channel.executor.run(call, self._channel.answers.acknowledgement)

    async def push_statuses(
        self, statuses: Statuses, *, on_result: Callable[[PushResult], object] | None = None
    ) -> PushReport:
        """Send many statuses concurrently; one device's failure does not stop the others.

        At most one request per device is in flight. The statuses of a device are sent in the order given; one that
        still waits when a newer one comes is superseded. A status that cannot be sent, such as one with NaN, is a
        failed result. Cancelling withdraws the statuses that were not sent; requests in flight continue.

        Args:
            statuses: A mapping of device identifiers to statuses, or an iterable or asynchronous iterable of
                pairs or ``StatusPush``. A status is encoded when it is read: changing it later changes nothing.
            on_result: Called with each result, on the event loop. What it raises ends the push and is raised here.

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

        A setting that is out of range raises ``ConfigurationError``.

        Args:
            outbox: Stores statuses until they are sent. In a ``SqlOutbox`` they survive the process, and several
                processes share the work. With a ``MemoryOutbox`` unsent ones pass from one pusher to the next.
            consistency: After an uncertain write, such as a timeout, ``"eventual"`` sends the newest status at once,
                and if the write had an older one, again after ``ambiguity_s``. ``"strict"`` holds the device for
                ``ambiguity_s``, so that an older status never overwrites a newer one.
            ambiguity_s: Seconds for which an uncertain write may still be applied; 5 by default.
            min_interval_s: Minimum seconds from one status of a device, sent or refused, to its next; PrintOS asks for
                60 to 120. Statuses in between are coalesced. Retries, and what replaces a failed status, do not wait.
            skip_unchanged: Skip a status equal to the last one sent; its result is ``"sent"`` with 0 attempts.
            unchanged_max_age_s: An equal status is sent all the same if the last one is older than this.
            max_pending_devices: Maximum number of devices with pending statuses, those of held accounts included. With
                a shared outbox, of devices that the pusher owns: at most 1,024, or four per permit if that is more.
            on_full: Whether ``put`` waits for room or raises ``PusherFullError``. A shared outbox always has room.
            deadline_s: Seconds after which a status that still waits fails with its last error; None for no deadline.
            drain_timeout_s: Maximum seconds for which leaving ``async with`` drains; None for as long as it takes.
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

        ``ConfigurationError`` is raised if the account is not known (see ``account``), or ``outbox`` is not an outbox.
        Entering the spooler raises it if a pusher or another spooler has the same object.
        """
        require_outbox(outbox)
        return Spooler(outbox, self._channel.operations, tenant=self._channel.tenant)

    @property
    def account(self) -> str:
        """Fingerprint of the account, under which an outbox stores its statuses; 32 hexadecimal digits.

        ``ConfigurationError`` is raised if no account is named, and ``auth`` has no attribute ``account``.
        """
        return self._channel.tenant.account
