"""Mocks and applications behind httpx2's transports; the other tests here cover its transport for sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
import pytest
import respx

from printos_async import (
    ConfigurationError,
    DeviceStatusUpdate,
    HmacAuth,
    NotFoundError,
    PrintOSClient,
    RequestTimeoutError,
    RetryPolicy,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BASE = "https://printos.invalid"
ON = DeviceStatusUpdate(status="DS_ON")


def make_client(transport: httpx2.AsyncBaseTransport) -> PrintOSClient:
    return PrintOSClient(
        BASE, auth=HmacAuth("key", "secret"), transport=transport, retry=RetryPolicy(max_attempts=1)
    )


async def test_a_mock_sees_the_request_and_its_answer_is_read() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(
            404, json={"smsError": {"message": "no such device"}}, headers={"location": "//["}
        )

    async with make_client(httpx2.MockTransport(answer)) as client:
        with pytest.raises(NotFoundError, match="no such device"):
            await client.update_device_status("press 7 ä", ON)
    [request] = seen
    assert (request.method, request.url.raw_path) == ("PUT", b"/devices/press%207%20%C3%A4/status")
    assert request.content == b'{"status":"DS_ON"}'
    assert request.headers.get_list("host") == ["printos.invalid"]
    assert request.headers["x-hp-hmac-authentication"].startswith("key:")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx2.ConnectError, TransportError),
        (httpx2.ConnectTimeout, RequestTimeoutError),
        (httpx2.ReadTimeout, RequestTimeoutError),
        (httpx2.RemoteProtocolError, TransportError),
        (type("OfSomebody", (httpx2.PoolTimeout,), {}), RequestTimeoutError),
    ],
)
async def test_errors_keep_their_kind_and_a_mock_is_not_believed_about_what_was_sent(
    error: type[httpx2.TransportError], expected: type[TransportError]
) -> None:
    def fail(request: httpx2.Request) -> httpx2.Response:
        raise error("mocked")

    async with make_client(httpx2.MockTransport(fail)) as client:
        with pytest.raises(TransportError, match="mocked") as caught:
            await client.update_device_status("dev-1", ON)
    assert type(caught.value) is expected
    assert caught.value.may_have_arrived


async def test_an_error_in_the_body_keeps_its_kind() -> None:
    class Broken(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b'{"devi'
            raise httpx2.ReadTimeout("in the body")

    async with make_client(httpx2.MockTransport(lambda _: httpx2.Response(200, stream=Broken()))) as client:
        with pytest.raises(RequestTimeoutError, match="in the body"):
            await client.list_devices()


async def test_an_application_is_called_in_process() -> None:
    async def application(scope: object, receive: object, send: object) -> None:
        assert callable(send)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"caf\xe9")]})
        await send({"type": "http.response.body", "body": b'{"devices": []}'})

    async with make_client(httpx2.ASGITransport(application)) as client:
        assert await client.list_devices() == []


@pytest.mark.parametrize("host", ["xn--bcher-kva.invalid", "[::1]:8443"])
async def test_the_host_arrives_as_it_is_written(host: str) -> None:
    seen: list[httpx2.URL] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.url)
        return httpx2.Response(200)

    transport = httpx2.MockTransport(answer)
    async with PrintOSClient(f"https://{host}", auth=None, transport=transport) as client:
        await client.update_device_status("dev-1", ON)
    assert [str(url).partition("/devices")[0] for url in seen] == [f"https://{host}"]


async def test_respx_over_httpx_also_mocks_a_client_with_a_transport_of_httpx2() -> None:
    with respx.mock(using="httpx") as router:
        router.get(f"{BASE}/devices").respond(json={"devices": []})
        async with httpx2.AsyncHTTPTransport() as transport, make_client(transport) as client:
            assert await client.list_devices() == []


def test_a_synchronous_transport_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"httpx2\.AsyncBaseTransport"):
        make_client(httpx2.HTTPTransport())  # type: ignore[arg-type]
