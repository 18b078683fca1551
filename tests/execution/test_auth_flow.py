"""Flows of other ``Auth`` objects whose requests are not as those of this package."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from printos_async import MissingCredentialsError
from printos_async._auth.login_response import TOKEN_HEADER
from tests.auth.host import LOGIN_PATH, ON, CheckingHost
from tests.delivery.clock import run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator


class StreamingAuth(httpx.Auth):
    """Asks a token service with a body that is a stream."""

    account = "site"

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        async def body() -> AsyncIterator[bytes]:
            yield b'{"login": '
            if self.fails:
                raise KeyError("s3cr3t")
            yield b'"dev-1", "password": "word"}'

        answer = yield httpx.Request("POST", request.url.join(LOGIN_PATH), content=body())
        request.headers[TOKEN_HEADER] = answer.json()["authToken"]
        yield request


def test_credentials_may_stream_the_body_of_a_login() -> None:
    async def program() -> None:
        host = CheckingHost(passwords={"dev-1": "word"})
        async with host.client(StreamingAuth(fails=False)) as client, client.status_pusher() as pusher:
            await client.update_device_status("dev-1", ON)
            assert (await pusher.push("dev-1", ON)).outcome == "sent"
        assert (host.applied, host.logins) == ({"dev-1": 2}, {"dev-1": 2})

    run(program())


def test_a_body_that_fails_is_a_failure_of_its_credentials() -> None:
    async def program() -> None:
        auth, host = StreamingAuth(fails=True), CheckingHost(passwords={"dev-1": "word"})
        async with host.client(auth) as client, client.status_pusher() as pusher:
            with pytest.raises(MissingCredentialsError, match="its credentials failed: KeyError") as caught:
                await client.update_device_status("dev-1", ON)
            assert "s3cr3t" not in repr(caught.value)
            assert caught.value.__context__ is caught.value.__cause__ is None
            await pusher.put("dev-1", ON)
            await asyncio.sleep(0.5)
            assert set(pusher.health().reasons) == {"account_held"}
            auth.fails = False
            await pusher.drain(10.0)
        assert (host.applied, host.logins) == ({"dev-1": 1}, {"dev-1": 1})

    run(program())
