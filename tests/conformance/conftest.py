"""Three servers that should look the same to the client: the sandbox, Prism's mock and respx's canned answers.

The sandbox is reached over the default transport and over those of httpx and httpx2.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import httpx2
import pytest
import respx
from attrs import frozen

from printos_async import PrintOSClient, RetryPolicy
from printos_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SPECIFICATION = Path(__file__).resolve().parents[2] / "spec" / "hp-printos-device-api-openapi.yml"
START_S = 60
STOP_S = 10


@frozen
class Server:
    """One of the three, as a test sees it."""

    name: str
    url: str
    transport: httpx.AsyncBaseTransport | httpx2.AsyncBaseTransport | None = None
    sandbox: Sandbox | None = None

    def client(self, *, path: str = "") -> PrintOSClient:
        # Without retries: an answer is looked at as it comes.
        return PrintOSClient(
            self.url + path, auth=None, transport=self.transport, retry=RetryPolicy(max_attempts=1)
        )


@pytest.fixture(scope="session")
def prism_url() -> Iterator[str]:
    """A Prism that mocks the specification; ``nox -s conformance`` installs it and says where."""
    executable = os.environ.get("PRINTOS_PRISM")
    if not executable:
        pytest.skip("PRINTOS_PRISM names no Prism; nox -s conformance brings one")
    command = [executable, "mock", "--host", "127.0.0.1", "--port", "0", str(SPECIFICATION)]
    # In a group of its own: some distributions of Node.js put a launcher between, which a signal would end alone.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    # Reading waits for as long as it takes; a Prism that says nothing is ended.
    watchdog = threading.Timer(START_S, os.killpg, (process.pid, signal.SIGKILL))
    watchdog.start()
    try:
        url = _prism_url(process)
        watchdog.cancel()
        yield url
    finally:
        watchdog.cancel()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=STOP_S)


def _prism_url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "listening on " in line:
            return line.partition("listening on ")[2].strip()
    pytest.fail(f"Prism did not start:\n{''.join(seen)}")


@pytest.fixture(params=["sandbox", "sandbox over httpx", "sandbox over httpx2", "prism", "respx"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    match request.param:
        case "sandbox":
            async with Sandbox() as sandbox:
                yield Server("sandbox", sandbox.url, sandbox=sandbox)
        case "sandbox over httpx":
            async with Sandbox() as sandbox, httpx.AsyncHTTPTransport() as transport:
                yield Server("sandbox", sandbox.url, transport=transport, sandbox=sandbox)
        case "sandbox over httpx2":
            async with Sandbox() as sandbox, httpx2.AsyncHTTPTransport() as successor:
                yield Server("sandbox", sandbox.url, transport=successor, sandbox=sandbox)
        case "prism":
            yield Server("prism", request.getfixturevalue("prism_url"))
        case _:
            # As users mock their own services: respx looks into httpx, so the client gets httpx's transport.
            async with httpx.AsyncHTTPTransport() as transport:
                with respx.mock(
                    base_url="https://printos.test", using="httpx", assert_all_called=False
                ) as router:
                    can_answers(router)
                    yield Server("respx", "https://printos.test", transport=transport)


def can_answers(router: respx.MockRouter) -> None:
    """Answer as PrintOS would, from what is written down here and nothing else."""
    device = {
        "id": "dev-1",
        "model": "Indigo 12000",
        "serialNumber": "SN-1",
        "status": "DS_ON",
        "registeredAt": "2024-01-15T12:34:56.789Z",
    }

    def accept(request: httpx.Request, device_id: str) -> httpx.Response:  # respx hands over the named group
        refused = b'"DS_ON"' not in request.content
        return httpx.Response(422 if refused else 200)

    router.get("/devices").respond(200, json={"devices": [device]})
    router.post("/devices").respond(201, json=device)
    router.put(path__regex=r"^/devices/(?P<device_id>[^/]+)/status$").mock(side_effect=accept)
    router.route(path__startswith="/no-such-api").respond(404, json={"smsError": {"message": "no such path"}})
