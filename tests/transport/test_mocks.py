"""respx and httpx's own mocks work with the client as they do with httpx."""

from __future__ import annotations

import httpx
import pytest
import respx

from printos_async import (
    DeviceStatusUpdate,
    HmacAuth,
    NotFoundError,
    PrintDevice,
    PrintOSClient,
    RequestTimeoutError,
    RetryPolicy,
    TransportError,
)

BASE = "https://printos.invalid"
ON = DeviceStatusUpdate(status="DS_ON")


def make_client(transport: httpx.AsyncBaseTransport, attempts: int = 1) -> PrintOSClient:
    retry = RetryPolicy(max_attempts=attempts, base_delay_s=0.0)
    return PrintOSClient(BASE, auth=HmacAuth("key", "secret"), transport=transport, retry=retry)


async def exercise(client: PrintOSClient, router: respx.MockRouter) -> None:
    """Expect of ``client`` what ``router`` is told to answer."""
    listing = router.get(f"{BASE}/devices").respond(json={"devices": [{"id": "dev-1"}]})
    put = router.put(f"{BASE}/devices/dev-1/status").respond(200)
    router.put(f"{BASE}/devices/dev-2/status").respond(404, json={"smsError": {"message": "no such device"}})
    router.post(f"{BASE}/devices").mock(side_effect=httpx.ConnectTimeout)
    assert await client.list_devices() == [PrintDevice(id="dev-1")]
    await client.update_device_status("dev-1", ON)
    with pytest.raises(NotFoundError, match="no such device"):
        await client.update_device_status("dev-2", ON)
    with pytest.raises(RequestTimeoutError):
        await client.provision_device(model="a")
    assert listing.call_count == 1
    [sent] = put.calls
    assert sent.request.content == b'{"status":"DS_ON"}'
    assert sent.request.headers["content-type"] == "application/json"
    assert sent.request.headers["x-hp-hmac-authentication"].startswith("key:")


async def test_router_is_a_mock_transport() -> None:
    router = respx.MockRouter(assert_all_called=False)
    async with make_client(httpx.MockTransport(router.async_handler)) as client:
        await exercise(client, router)


async def test_respx_over_httpx_works_with_any_transport() -> None:
    def never(request: httpx.Request) -> httpx.Response:
        pytest.fail("respx lets nothing through")

    transports = (httpx.MockTransport(never), httpx.AsyncHTTPTransport(verify=False))
    for transport in transports:
        with respx.mock(using="httpx") as router:
            async with make_client(transport) as client:
                await exercise(client, router)
        await transport.aclose()


async def test_respx_by_default_works_with_the_transport_of_httpx() -> None:
    with respx.mock() as router:
        async with httpx.AsyncHTTPTransport(verify=False) as transport, make_client(transport) as client:
            await exercise(client, router)


async def test_failures_can_be_mocked_and_are_tried_again() -> None:
    with respx.mock(using="httpx") as router:
        put = router.put(f"{BASE}/devices/dev-1/status")
        put.side_effect = [httpx.ReadError("reset"), httpx.Response(503), httpx.Response(200)]
        async with (
            httpx.AsyncHTTPTransport(verify=False) as transport,
            make_client(transport, attempts=3) as client,
        ):
            await client.update_device_status("dev-1", ON)
        assert put.call_count == 3


@pytest.mark.parametrize(
    "error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ReadError]
)
async def test_only_the_transport_of_httpx_is_believed_about_what_was_sent(error: type[Exception]) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error("mocked")

    async with make_client(httpx.MockTransport(fail)) as client:
        with pytest.raises(TransportError) as caught:
            await client.update_device_status("dev-1", ON)
    assert caught.value.may_have_arrived
    with respx.mock(using="httpx") as router:
        router.put().mock(side_effect=error)
        async with httpx.AsyncHTTPTransport(verify=False) as transport, make_client(transport) as client:
            with pytest.raises(TransportError) as caught:
                await client.update_device_status("dev-1", ON)
    assert caught.value.may_have_arrived == (error is httpx.ReadError)


async def test_application_is_called_in_process() -> None:
    async def application(scope: object, receive: object, send: object) -> None:
        assert callable(send)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"caf\xe9")]})
        await send({"type": "http.response.body", "body": b'{"devices": []}'})

    async with make_client(httpx.ASGITransport(application)) as client:
        assert await client.list_devices() == []


async def test_no_cookie_is_kept() -> None:
    cookies = []

    def respond(request: httpx.Request) -> httpx.Response:
        cookies.append(request.headers.get("cookie"))
        return httpx.Response(200, headers={"set-cookie": f"device={request.url.path}; path=/"})

    async with make_client(httpx.MockTransport(respond)) as client:
        for number in range(3):
            await client.update_device_status(f"dev-{number}", ON)
        wire = client._channel.attempts.open()
    assert cookies == [None, None, None]
    assert len(wire._client.cookies.jar) == 0  # type: ignore[attr-defined]
