"""The live line and the state lines on standard error."""

from __future__ import annotations

import asyncio
import sys

import pytest

from printos_async._delivery.pusher import PusherStats
from printos_async.cli.terminal.progress import PusherLine, live_progress, state_lines


def stats(sent: int) -> PusherStats:
    return PusherStats(
        accepted=sent,
        sent=sent,
        superseded=0,
        failed=0,
        pending=0,
        active_devices=0,
        in_flight=0,
        limit=8,
        requests=sent,
        circuit="closed",
        held_accounts=0,
        since_success_s=None,
    )


@pytest.mark.parametrize("every_s", [0.1, 1.0, 4.9, 5.0, 5.5, 60.0])
def test_the_rate_is_right_however_seldom_the_line_is_asked_for(every_s: float) -> None:
    now_s = 0.0
    line = PusherLine(clock=lambda: now_s)
    rates = []
    for _ in range(100):
        rates.append(line.describe(stats(round(1000 * now_s)), retries=0).split(" · ")[1])
        now_s += every_s
    assert rates == ["0/s", *["1,000/s"] * 99]


def test_the_rate_forgets_what_was_before_the_last_five_seconds() -> None:
    seconds = iter(range(100))
    line = PusherLine(clock=lambda: next(seconds))
    sent = [0] * 50 + [600 * number for number in range(1, 7)]
    rates = [line.describe(stats(count), retries=0).split(" · ")[1] for count in sent]
    assert rates[49:] == ["0/s", "120/s", "240/s", "360/s", "480/s", "600/s", "600/s"]


async def test_a_log_gets_state_lines_and_no_live_line_whatever_rich_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    described = asyncio.Event()

    def describe() -> str:
        described.set()
        return "1 sent"

    async with (
        live_progress("Working", total=None, sample=lambda: (0, "1 sent"), has_bar=False),
        state_lines(describe, every_s=0.001),
        asyncio.timeout(10),
    ):
        await described.wait()
    assert set(capsys.readouterr().err.splitlines()) == {"printos: 1 sent"}


@pytest.mark.parametrize("forced", ["", "1"])
async def test_a_terminal_gets_a_live_line_and_no_state_lines_whatever_rich_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, forced: str
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", forced)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    sampled = asyncio.Event()

    def sample() -> tuple[float, str]:
        sampled.set()
        return 0, "1 sent"

    async with (
        state_lines(lambda: "a state line", every_s=0.001),
        live_progress("Working", total=None, sample=sample, has_bar=False),
        asyncio.timeout(10),
    ):
        sampled.clear()
        await sampled.wait()
    err = capsys.readouterr().err
    assert "Working" in err
    assert "\x1b" in err
    assert "a state line" not in err
