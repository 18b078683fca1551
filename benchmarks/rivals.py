"""The clients that are compared. Each pushes statuses of distinct devices to the same server, in the same JSON.

A rival is an async context manager that makes a client and yields ``push``, a function that takes a number of statuses
and returns how many were answered with 200. The connections stay open between two calls, so that the measured call
finds them open. Each rival builds path and JSON for every status, and waits at most ``_TIMEOUT_S``. Only
``push_statuses`` signs its requests, which favours the others.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import ssl
from contextlib import asynccontextmanager
from functools import cache, partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from printos_device_api.models import DeviceStatusUpdate

    Push = Callable[[int], Awaitable[int]]
    Rival = Callable[[str, int], AbstractAsyncContextManager[Push]]

# Not a rival, but the limit of the server.
CEILING = "benchmarks.ceiling:"
_TIMEOUT_S = 60.0
_OK = 200
_MAX_BODY_BYTES = 1_000_000
# httpx's defaults. A scenario with more requests in flight gets more connections, but not more of them kept alive: for
# each request the pool compares all idle connections, and with 64 of them it is three times slower than with 20.
_HTTPX_CONNECTIONS = 100
_HTTPX_KEPT_ALIVE = 20


def _body(pages_total: int) -> dict[str, Any]:
    return {"status": "DS_PRINTING", "metrics": {"pagesTotal": pages_total, "inkLevel": 0.4}}


def _httpx_limits(in_flight: int) -> httpx.Limits:
    return httpx.Limits(
        max_connections=max(_HTTPX_CONNECTIONS, in_flight), max_keepalive_connections=_HTTPX_KEPT_ALIVE
    )


def _worker_pool(put: Callable[[int], Awaitable[int]], in_flight: int) -> Push:
    """Push with ``in_flight`` tasks that take statuses from one iterator; ``put`` returns the status code."""
    numbers = count()

    async def work(batch: Iterator[int]) -> int:
        achieved = 0
        for number in batch:
            achieved += await put(number) == _OK
        return achieved

    async def push(statuses: int) -> int:
        batch = islice(numbers, statuses)
        return sum(await asyncio.gather(*(work(batch) for _ in range(in_flight))))

    return push


def _status(pages_total: int) -> DeviceStatusUpdate:
    from printos_device_api.models import (  # noqa: PLC0415 - the other rivals do without
        DeviceStatusUpdate,
        DeviceStatusUpdateMetrics,
    )

    metrics = DeviceStatusUpdateMetrics(pages_total=pages_total, ink_level=0.4)
    return DeviceStatusUpdate(status="DS_PRINTING", metrics=metrics)


@asynccontextmanager
async def generated(url: str, in_flight: int, *, http2: bool = False) -> AsyncIterator[Push]:
    """The generated client under a semaphore, as most users would write it first."""
    from printos_device_api import Client  # noqa: PLC0415 - the other rivals do without
    from printos_device_api.api.devices import update_device_status  # noqa: PLC0415

    httpx_args = {"limits": _httpx_limits(in_flight), "http2": http2}
    semaphore = asyncio.Semaphore(in_flight)
    numbers = count()
    async with Client(base_url=url, timeout=httpx.Timeout(_TIMEOUT_S), httpx_args=httpx_args) as client:

        async def put(number: int) -> bool:
            async with semaphore:
                answer = await update_device_status.asyncio_detailed(
                    f"dev-{number}", client=client, body=_status(number)
                )
            return answer.status_code == _OK

        async def push(statuses: int) -> int:
            return sum(await asyncio.gather(*(put(number) for number in islice(numbers, statuses))))

        yield push


@asynccontextmanager
async def bare_httpx(url: str, in_flight: int, *, http2: bool = False) -> AsyncIterator[Push]:
    """Bare httpx in a worker pool, with as many connections as requests, so that none waits in its pool."""
    limits = _httpx_limits(in_flight)
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, limits=limits, http2=http2) as client:

        async def put(number: int) -> int:
            return (await client.put(f"/devices/dev-{number}/status", json=_body(number))).status_code

        yield _worker_pool(put, in_flight)


@asynccontextmanager
async def bare_aiohttp(url: str, in_flight: int) -> AsyncIterator[Push]:
    """Bare aiohttp in a worker pool, without a cookie jar."""
    import aiohttp  # noqa: PLC0415 - the other rivals do without

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=in_flight, keepalive_timeout=_TIMEOUT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
    ) as session:

        async def put(number: int) -> int:
            async with session.put(f"{url}/devices/dev-{number}/status", json=_body(number)) as answer:
                await answer.read()
                return answer.status

        yield _worker_pool(put, in_flight)


@asynccontextmanager
async def bare_transport(url: str, in_flight: int) -> AsyncIterator[Push]:
    """The facade's default transport in a worker pool, without the rest of the facade."""
    from printos_async._transport import (  # noqa: PLC0415 - the other rivals do without
        Http1Transport,
        Origin,
        RawRequest,
    )

    loop = asyncio.get_running_loop()
    address = urlsplit(url)
    origin = Origin(address.scheme, address.hostname or "", address.port or 0)
    headers = (("content-type", "application/json"),)
    transport = Http1Transport(make_ssl_context=cache(ssl.create_default_context))
    try:

        async def put(number: int) -> int:
            body = json.dumps(_body(number)).encode()
            request = RawRequest(origin, "PUT", f"/devices/dev-{number}/status", headers, body)
            answer = await transport.send(
                request, deadline=loop.time() + _TIMEOUT_S, max_body_bytes=_MAX_BODY_BYTES
            )
            return answer.status

        yield _worker_pool(put, in_flight)
    finally:
        await transport.aclose()


@asynccontextmanager
async def push_statuses(
    url: str, in_flight: int, *, transport: httpx.AsyncBaseTransport | None = None, proxy: str | None = None
) -> AsyncIterator[Push]:
    """`PrintOSClient.push_statuses` with all its features: signing, ordering, retries, events, report."""
    from printos_async import ConcurrencyLimit, HmacAuth, PrintOSClient  # noqa: PLC0415 - likewise

    numbers = count()
    limit = ConcurrencyLimit(minimum=in_flight, maximum=in_flight, initial=in_flight)
    async with PrintOSClient(
        url,
        auth=HmacAuth("key", "secret"),
        limit=limit,
        timeout_s=_TIMEOUT_S,
        transport=transport,
        proxy=proxy,
    ) as client:

        async def push(statuses: int) -> int:
            report = await client.push_statuses(
                (f"dev-{number}", _status(number)) for number in islice(numbers, statuses)
            )
            return int(report.sent)

        yield push


@asynccontextmanager
async def push_statuses_http2(url: str, in_flight: int) -> AsyncIterator[Push]:
    """`push_statuses` over httpx's transport, which speaks HTTP/2."""
    async with (
        httpx.AsyncHTTPTransport(http2=True, limits=_httpx_limits(in_flight)) as transport,
        push_statuses(url, in_flight, transport=transport) as push,
    ):
        yield push


RIVALS: dict[str, Rival] = {
    "generated": generated,
    "httpx": bare_httpx,
    "aiohttp": bare_aiohttp,
    "transport": bare_transport,
    "push_statuses": push_statuses,
}


HTTP2_RIVALS: dict[str, Rival] = {
    "generated_http2": partial(generated, http2=True),
    "httpx_http2": partial(bare_httpx, http2=True),
    "push_statuses_http2": push_statuses_http2,
}


def find_rival(name: str) -> Rival:
    """Return a rival by its name, or by ``module:function`` for one of another module.

    Raises:
        LookupError: There is no such rival.
    """
    if rival := (RIVALS | HTTP2_RIVALS).get(name):
        return rival
    module, separator, function = name.partition(":")
    if not separator:
        raise LookupError(f"no rival {name!r}: {', '.join(RIVALS | HTTP2_RIVALS)}, or module:function")
    return cast("Rival", getattr(importlib.import_module(module), function))
