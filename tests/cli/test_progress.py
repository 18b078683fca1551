"""The live line and the state lines on standard error."""

from __future__ import annotations

import pytest

from printos_async._delivery.pusher import PusherStats
from printos_async.cli.terminal.progress import PusherLine


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
