"""The public API as a user's own ``mypy --strict`` sees it. Not executed: the session ``types`` checks it.

An ``ignore`` below says that mypy must object: an unused one is an error itself.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal, assert_type

import httpx
import httpx2
from printos_device_api.types import Unset

from printos_async import (
    UNSET,
    AttemptFinished,
    ConcurrencyLimit,
    ConfigurationError,
    DeviceProvisionRequest,
    DeviceStatusUpdate,
    DeviceStatusUpdateMetrics,
    Event,
    FieldUnreadable,
    HmacAuth,
    Hook,
    NotFoundError,
    PrintDevice,
    PrintOSClient,
    PrintOSError,
    ProvisionResult,
    PushReport,
    PushResult,
    RequestTimeoutError,
    RetryPolicy,
    RetryScheduled,
    SessionTokenAuth,
    StatusError,
    StatusPush,
    StatusSuperseded,
    TransportError,
)
from printos_async.sandbox import Faults, Sandbox, SandboxDevice

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator

STATUS = DeviceStatusUpdate(status="DS_ON", metrics=DeviceStatusUpdateMetrics(pages_total=12, ink_level=0.5))


def make(
    context: ssl.SSLContext, transport: httpx.AsyncBaseTransport, successor: httpx2.AsyncBaseTransport
) -> list[PrintOSClient]:
    def hook(event: Event) -> None:
        if isinstance(event, AttemptFinished | RetryScheduled):
            assert_type(event.attempt, int)
        elif isinstance(event, StatusSuperseded):
            assert_type(event.superseded_by, int)
        elif isinstance(event, FieldUnreadable):
            assert_type(event.raw, object)

    with_function: Hook = hook
    collected: list[Event] = []
    hmac: httpx.Auth = HmacAuth("key", "secret", clock=lambda: 0.0)
    token: httpx.Auth = SessionTokenAuth("login", "password", login_url="https://login.example/")
    httpx2.AsyncClient(auth=HmacAuth("key", "secret"))
    httpx2.AsyncClient(auth=SessionTokenAuth("login", "password"))
    HmacAuth()  # type: ignore[call-arg]
    PrintOSClient()  # type: ignore[call-arg]
    PrintOSClient("https://printos.example", auth="key:secret")  # type: ignore[arg-type]
    PrintOSClient("https://printos.example", hmac)  # type: ignore[call-arg]
    RetryPolicy(3)  # type: ignore[call-arg]
    return [
        PrintOSClient(auth=hmac),
        PrintOSClient("https://printos.example", auth=token, verify=context, timeout_s=3),
        PrintOSClient(auth=httpx.BasicAuth("user", "password"), transport=transport),
        PrintOSClient(auth=httpx2.BasicAuth("user", "password"), transport=successor),
        PrintOSClient(auth=None, hooks=[with_function, collected.append]),
        PrintOSClient(
            auth=None, retry=RetryPolicy(max_attempts=3), limit=ConcurrencyLimit(initial=8, maximum=16)
        ),
        assert_type(PrintOSClient.from_env(timeout_s=1.5), PrintOSClient),
    ]


async def operations(client: PrintOSClient) -> None:
    async with client as printos:
        assert_type(printos, PrintOSClient)
        devices = await printos.list_devices()
        assert_type(devices, list[PrintDevice])
        assert_type(devices[0].id, str | Unset)
        assert_type(devices[0].registered_at, datetime | Unset)
        device = await printos.provision_device(model="m", serial_number="s", location="l")
        assert_type(device, PrintDevice)
        await printos.provision_device(model=UNSET, serial_number="s", location=device.model)
        await printos.provision_device(model=None)  # type: ignore[arg-type]
        await printos.provision_device("m")  # type: ignore[call-arg]
        results = await printos.provision_devices(
            DeviceProvisionRequest(serial_number=str(n)) for n in range(3)
        )
        assert_type(results, list[ProvisionResult])
        assert_type(await printos.ensure_devices(result.request for result in results), list[ProvisionResult])
        assert_type(results[0].outcome, Literal["provisioned", "found", "failed"])
        assert_type(results[0].device, PrintDevice | None)
        await printos.update_device_status("dev-1", STATUS)
        for device in await printos.list_devices():
            await printos.update_device_status(device.id, STATUS)
        await printos.push_statuses({device.id: STATUS for device in await printos.list_devices()})
        await printos.push_statuses((device.id, STATUS) for device in await printos.list_devices())
        await printos.update_device_status("dev-1", {"status": "DS_ON"})  # type: ignore[arg-type]
    await client.aclose()


async def pushes(printos: PrintOSClient) -> None:
    def pairs() -> Iterator[tuple[str, DeviceStatusUpdate]]:
        yield "dev-1", STATUS

    async def stream() -> AsyncIterator[StatusPush]:
        yield StatusPush("dev-1", STATUS)

    def show(result: PushResult) -> None:
        assert_type(result.outcome, Literal["sent", "superseded", "failed"])
        assert_type(result.error, PrintOSError | None)
        assert_type(result.status, DeviceStatusUpdate | None)

    on_result: Callable[[PushResult], object] = show
    report = await printos.push_statuses({"dev-1": STATUS}, on_result=on_result)
    assert_type(report, PushReport)
    assert_type(report.sent + report.superseded + report.failed, int)
    assert_type(report.failures, list[PushResult])
    await printos.push_statuses([("dev-1", STATUS)])
    await printos.push_statuses([StatusPush("dev-1", STATUS)])
    await printos.push_statuses(pairs())
    await printos.push_statuses(stream())
    await printos.push_statuses(["dev-1"])  # type: ignore[list-item]
    await printos.push_statuses({"dev-1": "DS_ON"})  # type: ignore[arg-type]
    report.raise_for_failures()


def errors(error: PrintOSError) -> None:
    match error:
        case NotFoundError():
            assert_type(error.status, int)
        case StatusError():
            assert_type(error.retry_after_s, float | None)
            assert_type(error.request_id, str | None)
        case RequestTimeoutError() | TransportError():
            assert_type(error.may_have_arrived, bool)
            assert_type(error.attempts, int)
        case ConfigurationError():
            assert_type(_as_value_error(error), ValueError)
        case _:
            assert_type(error, PrintOSError)


def _as_value_error(error: ConfigurationError) -> ValueError:
    return error


async def other_peoples_tests() -> None:
    async with Sandbox(faults=Faults(rate_limited=0.1), hmac_keys={"key": "secret"}) as sandbox:
        assert_type(sandbox, Sandbox)
        assert_type(sandbox.url, str)
        assert_type(sandbox.devices["dev-1"], SandboxDevice)
        sandbox.inject("no such fault")  # type: ignore[arg-type]
