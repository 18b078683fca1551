"""Secrets, passwords and tokens appear in no log, repr, error, event, span or outbox, whatever goes wrong."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import TYPE_CHECKING

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from printos_async import (
    APIError,
    DeviceCredentials,
    HmacAuth,
    PrintOSClient,
    RetryPolicy,
    SessionTokenAuth,
    SqlOutbox,
)
from printos_async.otel import OpenTelemetryHook
from tests.transport.scripted import ScriptedServer

from .host import ON, Answer, CheckingHost

if TYPE_CHECKING:
    from pathlib import Path

    import httpx
    import pytest

CANARY = "c4n4ry"


class TalkativeHost(CheckingHost):
    """Quotes what it was sent, refuses some of it, and puts a canary into its tokens."""

    async def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        answer = await super().answer(method, target, headers, body)
        if answer.status != 200 or "dev-talk" in target:
            key = headers.get("x-hp-hmac-authentication", "").partition(":")[0]
            device_id = target.split("/")[2]
            known = [self.keys.get(key, ""), self.passwords.get(device_id, ""), body.decode()]
            said = " ".join([*headers.values(), *known])
            status = 400 if answer.status == 200 else answer.status
            answer = Answer(status, said.encode(), answer.headers)
        return answer


class VaultError(Exception):
    """An error of the caller's, with a secret in its text."""


def failing(_: object = None) -> str:
    raise VaultError(f"{CANARY}-vault")


def contents(folder: Path) -> list[str]:
    return [path.read_bytes().decode("latin-1") for path in folder.iterdir()]


async def test_no_canary_gets_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(shutdown_on_exit=False), MeterProvider([reader], shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    told: list[str] = []
    secret = f"{CANARY}-rotating-1"

    auths: dict[str, httpx.Auth | None] = {
        "dev-key": HmacAuth("key-good", f"{CANARY}-key"),
        "dev-talk": HmacAuth("key-talk", f"{CANARY}-talk"),
        "dev-bad-key": HmacAuth("key-bad", f"{CANARY}-bad-key"),
        "dev-rotating": HmacAuth("key-rotating", lambda: secret),
        "dev-failing": HmacAuth("key-failing", failing),
        "dev-login": SessionTokenAuth("dev-login", f"{CANARY}-password"),
        "dev-bad-login": SessionTokenAuth("dev-bad-login", f"{CANARY}-bad-password"),
        "dev-paused": SessionTokenAuth("dev-paused", f"{CANARY}-paused"),
        "dev-none": None,
    }

    def lookup(device_id: str) -> httpx.Auth | None:
        return auths[device_id] if device_id in auths else failing()  # type: ignore[return-value]

    devices = [*auths, "dev-unknown"]
    host = TalkativeHost(
        keys={"key-good": f"{CANARY}-key", "key-talk": f"{CANARY}-talk", "key-rotating": secret},
        passwords={"dev-login": f"{CANARY}-password"},
        on_login=lambda login: Answer(429, headers={"retry-after": "1"}) if login == "dev-paused" else None,
    )
    texts: list[str] = []
    outbox = SqlOutbox(f"sqlite+aiosqlite:///{tmp_path / 'spool.db'}")
    credentials = DeviceCredentials(lookup, default=HmacAuth("key-default", f"{CANARY}-default"))
    async with (
        ScriptedServer(host.handle) as server,
        PrintOSClient(
            str(server.origin),
            auth=credentials,
            retry=RetryPolicy(max_attempts=2, base_delay_s=0.001, max_delay_s=0.5),
            hooks=[
                lambda event: told.append(repr(event)),
                OpenTelemetryHook(meter_provider=meters, tracer_provider=tracers),
            ],
        ) as client,
    ):
        async with client.status_pusher(outbox=outbox) as pusher:
            for device_id in devices:
                await pusher.put(device_id, ON)
            while pusher.stats().sent < 3:  # noqa: ASYNC110  # what else is told is the point of the test
                await asyncio.sleep(0.01)
            texts += [repr(pusher), repr(pusher.stats())]
            await pusher.drain(timeout_s=0.2)
        report = await client.push_statuses(dict.fromkeys(devices, ON))
        secret = host.keys["key-rotating"] = f"{CANARY}-rotating-2"
        again = await client.push_statuses({"dev-rotating": ON, "dev-talk": ON})
        assert again.sent == 1
        for result in [*report.failures, *again.failures]:
            assert isinstance(result.error, APIError)
            texts += [str(result), *traceback.TracebackException.from_exception(result.error).format()]
            texts += [repr(result.error), str(vars(result.error))]
            assert result.error.__cause__ is result.error.__context__ is None
        texts += [repr(client), repr(credentials), repr(auths), client.account]
        texts += [repr(account) for account in client._channel.attempts.accounts._known.values()]  # type: ignore[attr-defined]
    assert {failure.device_id for failure in report.failures} >= {"dev-bad-key", "dev-bad-login", "dev-none"}
    texts += told
    texts += [record.getMessage() + str(vars(record)) for record in caplog.records]
    texts += [span.to_json() for span in exporter.get_finished_spans()]
    texts.append(str(reader.get_metrics_data()))
    texts += contents(tmp_path)
    assert len(told) > 10
    assert exporter.get_finished_spans()
    secrets = [CANARY, *host.tokens]
    assert [text for text in texts for one in secrets if one in text] == []
