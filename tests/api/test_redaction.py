"""No secret leaves the client but to the server, even where the server sends it back."""

from __future__ import annotations

import asyncio
import html
import json
import logging
import re
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote, quote_plus

import httpx
import pytest
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from printos_async import (
    DeviceStatusUpdate,
    HmacAuth,
    PrintOSClient,
    PrintOSError,
    RetryPolicy,
    SessionTokenAuth,
)
from printos_async._common.redaction import MASK, MIN_CHARS_ANYWHERE, excerpt, one_line, redact
from printos_async._transport import Origin, RawRequest, RawResponse
from tests.auth.tracebacks import chain_of
from tests.transport.scripted import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.transport.scripted import Handler, Peer, Request

SECRET = 'p/w "quoted" & caf\xe9 <s3cr3t> \\ \u2603 it\'s'
ON = DeviceStatusUpdate(status="DS_ON")
TOKEN = "t0k3n/with+signs=&%41~"
SPELLINGS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON with upper-case escapes": lambda text: json.dumps(text)[1:-1].replace("\\u00e9", "\\u00E9"),
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "JSON as PHP writes it": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "URL": lambda text: quote(text, safe=""),
    "URL path": quote,
    "URL in lower case": lambda text: re.sub("%..", lambda escape: escape[0].lower(), quote(text, safe="")),
    "form": quote_plus,
    "HTML": html.escape,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_secret_is_replaced_in_any_spelling(spelling: str) -> None:
    for secret in (SECRET, TOKEN, "plain"):
        text = f"before {SPELLINGS[spelling](secret)} after"
        assert redact(text, [secret, "unused"]) == f"before {MASK} after"


def test_longer_secret_goes_before_the_one_inside_it() -> None:
    assert redact("key:abcd and abcd", ["abcd", "key:abcd"]) == f"{MASK} and {MASK}"


@pytest.mark.parametrize("secret", ["e", "42", "abc", "\xe9", "<"])
def test_short_secret_is_replaced_as_a_word_of_its_own_and_leaves_other_words_readable(secret: str) -> None:
    text = f"the {secret}vent42 of caf{secret} was refused: "
    echoes = f"{secret}, 'key:{secret}' and \"{secret}\""
    assert redact(text + echoes, [secret]) == f"{text}{MASK}, 'key:{MASK}' and \"{MASK}\""


def test_short_secret_within_a_longer_one_does_not_uncover_it() -> None:
    assert redact("abcdef and abc", ["abc", "abcdef"]) == f"{MASK} and {MASK}"


@settings(deadline=None)
@given(st.text(min_size=MIN_CHARS_ANYWHERE, max_size=30), st.text(), st.integers(0, 60), st.booleans())
def test_excerpt_is_bounded_and_never_shows_the_secret(secret: str, text: str, limit: int, cut: bool) -> None:  # noqa: FBT001
    if secret in MASK or MASK in secret:
        return
    shown = excerpt(text + secret + text + secret, [secret], limit=limit, cut=cut)
    assert len(shown) <= limit
    assert secret not in shown.replace(MASK, "")


@pytest.mark.parametrize("limit", range(40))
def test_secret_that_the_limit_cuts_in_two_is_not_shown_by_half(limit: int) -> None:
    shown = excerpt("x" * 20 + "S3CR3T" + "y" * 20, ["S3CR3T"], limit=limit)
    assert not set(shown.replace(MASK, "")) & set("S3CR3T")


def test_secret_that_a_missing_end_cuts_in_two_is_not_shown_by_half() -> None:
    assert "S3C" not in excerpt("the token is S3CR3", ["S3CR3T-and-more"], limit=100, cut=True)


@settings(deadline=None)
@given(
    st.text(min_size=MIN_CHARS_ANYWHERE, max_size=30), st.text(alphabet=st.characters()), st.integers(0, 300)
)
def test_one_line_is_printable_and_bounded_and_never_shows_the_secret(
    secret: str, text: str, limit: int
) -> None:
    if secret in MASK or MASK in secret or secret in "\ufffd ":
        return
    shown = one_line(text + secret + text + secret, [secret], limit=limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    assert secret not in shown.replace(MASK, "")


# What a server can do with what it knows. ``echo`` holds every secret in one spelling.
Answerer: TypeAlias = "Callable[[bytes], bytes]"


def in_body(status: int, template: bytes = b'{"smsError": {"message": "bad %s here"}}') -> Answerer:
    def answer(echo: bytes) -> bytes:
        body = template.replace(b"%s", echo)
        return b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)

    return answer


def in_headers(status: int) -> Answerer:
    def answer(echo: bytes) -> bytes:
        names = (b"x-echo", b"x-request-id", b"set-cookie: a", b"location", b"retry-after", b"content-type")
        lines = b"".join(b"%s: %s\r\n" % (name, echo) for name in names)
        return b"HTTP/1.1 %d x\r\n%scontent-length: 0\r\n\r\n" % (status, lines)

    return answer


ANSWERS: dict[str, Answerer] = {
    **{f"body of {status}": in_body(status) for status in (400, 401, 403, 404, 409, 418, 429, 500)},
    "plain body": in_body(503, b"%s"),
    "bytes that are no text": in_body(500, b"\xff\xfe %s \x80"),
    "page": in_body(500, b"<html><p>%s</p></html>"),
    "success without a model": in_body(200, b'<html>%s"'),
    "success with another model": in_body(200, b'{"smsError": "%s"}'),
    "headers": in_headers(500),
    "headers of a redirect": in_headers(302),
    "headers of a success": in_headers(200),
    "reason": lambda echo: b"HTTP/1.1 500 %s\r\ncontent-length: 0\r\n\r\n" % echo,
    "reason of a success": lambda echo: b"HTTP/1.1 200 %s\r\ncontent-length: 0\r\n\r\n" % echo,
    "bad status line": lambda echo: b"HTTP/1.1 %s\r\n\r\n" % echo,
    "bad header": lambda echo: b"HTTP/1.1 200 OK\r\n%s\r\n\r\n" % echo,
    "bad header name": lambda echo: b"HTTP/1.1 200 OK\r\n%s : 1\r\n\r\n" % echo,
    "bad chunk": lambda echo: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%s\r\n\r\n" % echo,
    "bad length": lambda echo: b"HTTP/1.1 200 OK\r\ncontent-length: %s\r\n\r\n" % echo,
    "no HTTP": lambda echo: echo + b"\r\n\r\n",
    "cut off": lambda echo: b"HTTP/1.1 500 x\r\nx-echo: %s\r\ncontent-length: 999\r\n\r\n%s" % (echo, echo),
}


@define
class Secrets:
    """What must not be seen, as learned from the requests themselves."""

    values: set[str]


def echoing(answerer: Answerer, spelling: str, secrets: Secrets, *, login: bool) -> Handler:
    async def handle(peer: Peer) -> None:
        while request := await peer.read_request():
            _learn(request, secrets)
            if request.target.endswith("/login") and not login:
                body = json.dumps({"authToken": TOKEN}).encode()
                head = b"set-cookie: Indigo-SmS-Auth-Token=%s\r\n" % TOKEN.encode()
                await peer.send(
                    b"HTTP/1.1 200 OK\r\n%scontent-length: %d\r\n\r\n%s" % (head, len(body), body)
                )
                continue
            # A signature is good for one request; only that one's is known when its answer comes.
            signature = request.headers.get("x-hp-hmac-authentication", "").partition(":")[2]
            known = {SECRET, signature} - {""} if signature else secrets.values
            spelled = " and ".join(map(SPELLINGS[spelling], sorted(known)))
            await peer.send(answerer(spelled.encode().replace(b"\n", b"")))
            return

    return handle


def _learn(request: Request, secrets: Secrets) -> None:
    if token := request.headers.get("indigo-sms-auth-token"):
        secrets.values.add(token)
    if signed := request.headers.get("x-hp-hmac-authentication"):
        secrets.values.add(signed.partition(":")[2])


def everything_about(error: BaseException) -> Iterator[str]:
    """Yield every text that an error and its chain can be made to show."""
    for one in chain_of(error):
        yield from (str(one), repr(one), repr(one.args), repr(getattr(one, "__notes__", ())), repr(vars(one)))
        yield from (value for value in vars(one).values() if isinstance(value, str))
        yield "".join(traceback.format_exception(one))


def everything_logged(records: list[logging.LogRecord]) -> Iterator[str]:
    for record in records:
        yield record.getMessage()
        yield repr(record.msg)
        yield repr(record.args)
        if record.exc_info:
            yield logging.Formatter().formatException(record.exc_info)


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    for name in ("asyncio", "httpcore", "httpx", "printos_async", "hpack"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


@pytest.mark.parametrize("via", ["http1", "httpx"])
@pytest.mark.parametrize("scheme", ["HMAC", "session", "login"])
@pytest.mark.parametrize("answer", ANSWERS)
async def test_what_a_server_echoes_is_not_repeated(
    logs: pytest.LogCaptureFixture, via: str, scheme: str, answer: str
) -> None:
    errors = 0
    for spelling, spell in SPELLINGS.items():
        asyncio.get_running_loop().set_debug(spelling == "raw")  # it says more, and is slow
        secrets = Secrets({SECRET})
        auth = HmacAuth("device-key", SECRET) if scheme == "HMAC" else SessionTokenAuth("login", SECRET)
        transport = httpx.AsyncHTTPTransport(verify=False) if via == "httpx" else None
        handler = echoing(ANSWERS[answer], spelling, secrets, login=scheme == "login")
        async with ScriptedServer(handler) as server:
            client = PrintOSClient(
                str(server.origin),
                auth=auth,
                retry=RetryPolicy(max_attempts=1),
                transport=transport,
                timeout_s=5,
            )
            texts: list[str] = []
            for call in (client.list_devices, partial(client.update_device_status, "dev-1", ON)):
                try:
                    await call()
                except PrintOSError as error:
                    errors += 1
                    texts += everything_about(error)
            texts += [
                repr(auth),
                repr(client),
                str(client),
                repr(vars(client)),
                repr(client._channel.attempts),
            ]
            await client.aclose()
            if transport is not None:
                await transport.aclose()
        texts += everything_logged(logs.records)
        logs.clear()
        assert len(secrets.values) == (1 if scheme == "login" else 2 if scheme == "session" else 3)
        for text in texts:
            for secret in secrets.values:
                assert secret not in text, spelling
                assert spell(secret) not in text, spelling
    assert errors >= len(SPELLINGS)


def test_repr_of_what_carries_credentials_shows_none() -> None:
    request = RawRequest(Origin("https", "a", 443), "GET", "/", (("x-token", TOKEN),), TOKEN.encode())
    response = RawResponse(200, [("set-cookie", TOKEN)], TOKEN.encode())
    auth: tuple[Any, ...] = (HmacAuth("device-key", SECRET), SessionTokenAuth(TOKEN, SECRET))
    for each in (request, response, *auth):
        assert TOKEN not in repr(each) + str(each)
        assert SECRET not in repr(each) + str(each)
    assert "device-key" not in repr(auth[0])


async def test_transport_that_quotes_its_request_is_not_repeated(logs: pytest.LogCaptureFixture) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        signed = request.headers["x-hp-hmac-authentication"]
        raise ValueError(f"cannot send {request.headers.raw!r} with {signed} of {SECRET}")

    client = PrintOSClient(
        "https://printos.invalid",
        auth=HmacAuth("device-key", SECRET),
        transport=httpx.MockTransport(fail),
        retry=RetryPolicy(max_attempts=1),
    )
    with pytest.raises(PrintOSError) as caught:
        await client.list_devices()
    for text in (*everything_about(caught.value), *everything_logged(logs.records)):
        assert SECRET not in text
        assert "device-key:" not in text
