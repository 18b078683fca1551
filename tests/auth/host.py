"""A PrintOS that checks credentials: in memory behind the seam that carries bytes, or on a socket."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections import Counter
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING

from attrs import define, field

from printos_async import DeviceStatusUpdate, RetryPolicy
from printos_async._transport import RawResponse
from tests.clients import ClientOver, channel_over

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from printos_async import PrintOSClient
    from printos_async._transport import RawRequest
    from tests.transport.scripted import Peer

LOGIN_PATH = "/api/aaa/v1/devices/login"
EPOCH_S = 1705322096.0
ON = DeviceStatusUpdate(status="DS_ON")


@define
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(factory=dict)


@define(eq=False)
class CheckingHost:
    """Accepts signatures by ``keys`` and tokens that ``passwords`` got; a token is good for its own device only.

    Attributes:
        clock: The server's, seconds since the epoch.
        on_login: Answers a login in place of the host, unless it returns None.
        latency_s: Time that a login takes.
        uses: Requests that a token is good for.
    """

    keys: dict[str, str] = field(factory=dict)
    passwords: dict[str, str] = field(factory=dict)
    clock: Callable[[], float] | None = None
    tolerance_s: float = 300.0
    on_login: Callable[[str], Answer | None] = lambda _: None
    extra_headers: dict[str, str] = field(factory=dict)
    latency_s: float = 0.0
    uses: int | None = None
    refusal: int = 401
    tokens: dict[str, list[Any]] = field(factory=dict)  # device and uses left, by token
    logins: Counter[str] = field(factory=Counter)
    requests: Counter[str] = field(factory=Counter)
    applied: Counter[str] = field(factory=Counter)
    foreign: int = 0
    logins_now: int = 0
    logins_at_once: int = 0
    made: int = 0
    secrets: tuple[str, ...] = ()

    def revoke(self) -> None:
        self.tokens.clear()

    async def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        if target == LOGIN_PATH:
            answer = await self._login(json.loads(body))
        else:
            device_id = target.split("/")[2] if target.count("/") > 1 else ""
            self.requests[device_id] += 1
            if self._accepts(method, target, headers, device_id):
                self.applied[device_id] += 1
                answer = Answer(200, b'{"devices": []}' if method == "GET" else b"")
            else:
                answer = Answer(self.refusal)
        if self.clock is not None:
            answer.headers["date"] = format_datetime(datetime.fromtimestamp(self.clock(), UTC), usegmt=True)
        answer.headers |= self.extra_headers
        return answer

    async def _login(self, sent: dict[str, str]) -> Answer:
        login = sent["login"]
        self.logins[login] += 1
        self.logins_now += 1
        self.logins_at_once = max(self.logins_at_once, self.logins_now)
        try:
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            else:
                await asyncio.sleep(0)
        finally:
            self.logins_now -= 1
        if (answer := self.on_login(login)) is not None:
            return answer
        if self.passwords.get(login) != sent["password"]:
            return Answer(401)
        self.made += 1
        token = f"token-{self.made}-of-{login}"
        self.tokens[token] = [login, self.uses]
        return Answer(200, json.dumps({"authToken": token}).encode())

    def _accepts(self, method: str, target: str, headers: dict[str, str], device_id: str) -> bool:
        if token := headers.get("indigo-sms-auth-token"):
            known = self.tokens.get(token)
            if not token.endswith(f"-of-{device_id}"):
                self.foreign += 1
                return False
            if known is None or known[1] == 0:
                return False
            if known[1] is not None:
                known[1] -= 1
            return True
        key, _, signature = headers.get("x-hp-hmac-authentication", "").partition(":")
        secret = self.keys.get(key)
        if secret is None:
            return False
        timestamp = headers["x-hp-hmac-date"]
        text = f"{method} {target.partition('?')[0]}{timestamp}"
        expected = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        off_s = abs(datetime.fromisoformat(timestamp).timestamp() - self.clock()) if self.clock else 0.0
        return signature == expected and off_s <= self.tolerance_s

    # As a transport

    async def send(self, request: RawRequest, *, deadline: float, max_body_bytes: int) -> RawResponse:
        answer = await self.answer(request.method, request.target, dict(request.headers), request.body)
        return RawResponse(answer.status, list(answer.headers.items()), answer.body)

    async def aclose(self) -> None:
        pass

    def client(self, auth: Any, **settings: Any) -> PrintOSClient:
        """A client of this host in memory."""
        settings.setdefault("retry", RetryPolicy(base_delay_s=0.01, max_delay_s=2.0))
        return ClientOver(channel_over(self, auth=auth, **settings))

    # On a socket

    async def handle(self, peer: Peer) -> None:
        while request := await peer.read_request():
            answer = await self.answer(request.method, request.target, request.headers, request.body)
            lines = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
            head = f"HTTP/1.1 {answer.status} x\r\n{lines}content-length: {len(answer.body)}\r\n\r\n"
            await peer.send(head.encode() + answer.body)
