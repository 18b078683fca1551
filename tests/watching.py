"""A server that repeats every credential it gets: what watches the client must not repeat them in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from printos_async import APIError, HmacAuth, PrintOSClient, SessionTokenAuth

from .conftest import KEY, QUICK_RETRY, SECRET, status

if TYPE_CHECKING:
    from printos_async import Hook

LOGIN, PASSWORD, TOKEN = "fleet@example.com", "correct horse battery", "token-7f3a9c"


class Parrot:
    """Answers with what it was sent; ``heard`` is every secret that came by."""

    def __init__(self) -> None:
        self.heard = {SECRET, PASSWORD, TOKEN}
        self._requests = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/login"):
            return httpx.Response(200, json={"authToken": TOKEN})
        credentials = [
            request.headers[name]
            for name in ("x-hp-hmac-authentication", "indigo-sms-auth-token")
            if name in request.headers
        ]
        self.heard.update(*(value.rsplit(":", 1)[-1:] for value in credentials))
        text = " ".join(credentials)
        if request.method == "GET":
            device = {"id": "dev-1", "lastSeen": text, "model": [text], "provisionedAt": text}
            return httpx.Response(200, json={"devices": [device]})
        self._requests += 1
        code = (503, 400)[self._requests % 2]
        return httpx.Response(
            code, json={"smsError": {"message": text}}, headers={"x-request-id": text, "x-echo": text}
        )


async def exercise_parrot(hooks: list[Hook]) -> set[str]:
    """Let every kind of event happen with every kind of credential; give the secrets that came by."""
    parrot = Parrot()
    transport = httpx.MockTransport(parrot)
    for auth in (HmacAuth(KEY, SECRET), SessionTokenAuth(LOGIN, PASSWORD)):
        url = "https://printos.test"
        async with PrintOSClient(
            url, auth=auth, transport=transport, retry=QUICK_RETRY, hooks=hooks
        ) as client:
            await client.list_devices()
            for _ in range(4):
                try:
                    await client.update_device_status("dev-1", status())
                except APIError:
                    continue
            async with client.status_pusher() as pusher:
                for index in range(4):
                    await pusher.put(f"dev-{index}", status())
    return parrot.heard
