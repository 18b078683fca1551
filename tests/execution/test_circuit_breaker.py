"""The circuit breaker and the gate that Retry-After closes, on times given by hand."""

from __future__ import annotations

import pytest

from printos_async._execution.circuit_breaker import MAX_HOLD_S, HostHealth

HOUR_S = 3_600.0
YEAR_S = 365 * 86_400.0


def fail(health: HostHealth, times: int, *, now_s: float = 0.0, every_s: float = 0.0) -> float:
    """Note failures; gives the time of the last one."""
    for number in range(times):
        health.failed(now_s=now_s + number * every_s, retry_after_s=None)
    return now_s + (times - 1) * every_s


def open_circuit() -> HostHealth:
    health = HostHealth()
    fail(health, 100)
    assert is_open(health)
    return health


def is_open(health: HostHealth) -> bool:
    return health.circuit == "open"


def admitted(health: HostHealth, now_s: float) -> int:
    """Count the probes that are admitted at once."""
    count = 0
    while health.admit(now_s=now_s, patient=True) <= now_s:
        count += 1
        assert count < 1_000
    return count


@pytest.mark.parametrize(("failures", "every_s"), [(100, 0.0), (20, 2.0 / 19), (5, 0.75)])
def test_failures_in_a_row_open_the_circuit_the_sooner_the_more_there_are(
    failures: int, every_s: float
) -> None:
    health = HostHealth()
    fail(health, failures - 1, every_s=every_s)
    assert not is_open(health)
    health.failed(now_s=(failures - 1) * every_s + 1e-9, retry_after_s=None)
    assert is_open(health)


@pytest.mark.parametrize(("failures", "every_s"), [(99, 0.0), (19, 2.9 / 19), (4, 100.0)])
def test_too_few_failures_or_in_too_short_a_time_do_not_open_it(failures: int, every_s: float) -> None:
    health = HostHealth()
    for _ in range(10):
        fail(health, failures, every_s=every_s)
        health.succeeded(now_s=failures * every_s)
    assert not is_open(health)


def test_an_open_circuit_admits_a_probe_a_second() -> None:
    health = open_circuit()
    assert [admitted(health, now_s) for now_s in (0.0, 0.99, 1.0, 1.5, 1.99, 2.0, 5.0)] == [
        0,
        0,
        1,
        0,
        0,
        1,
        1,
    ]


def test_successes_admit_more_probes_and_the_third_closes_the_circuit() -> None:
    health = open_circuit()
    assert admitted(health, 1.0) == 1
    assert health.succeeded(now_s=1.1)
    assert is_open(health)
    assert admitted(health, 1.1) == 2
    assert health.succeeded(now_s=1.2)
    assert is_open(health)
    assert health.succeeded(now_s=1.2)
    assert not is_open(health)
    assert not health.succeeded(now_s=1.3)


def test_a_failed_probe_goes_back_to_one_a_second() -> None:
    health = open_circuit()
    assert admitted(health, 1.0) == 1
    health.succeeded(now_s=1.1)
    health.failed(now_s=1.1, retry_after_s=None)
    assert [admitted(health, now_s) for now_s in (1.1, 1.9, 2.0)] == [0, 0, 1]


def test_ten_failures_between_two_successes_make_the_earlier_ones_count_no_more() -> None:
    health = open_circuit()
    for now_s in (1.0, 2.0):
        health.succeeded(now_s=now_s)
    fail(health, 10, now_s=2.0)
    for now_s in (3.0, 4.0):
        health.succeeded(now_s=now_s)
    assert is_open(health)
    fail(health, 9, now_s=4.0)
    health.succeeded(now_s=5.0)
    assert not is_open(health)


def test_bulk_pushes_are_not_held_by_an_open_circuit() -> None:
    health = open_circuit()
    assert health.admit(now_s=0.0, patient=False) == 0.0


def test_refusals_for_load_open_the_circuit_but_do_not_look_like_a_host_that_is_down() -> None:
    health = HostHealth()
    for _ in range(100):
        health.failed(now_s=0.0, retry_after_s=None, is_refusal=True)
    assert is_open(health)
    assert not health.seems_down
    fail(health, 10)
    assert health.seems_down


def test_two_logins_that_are_answered_so_are_enough() -> None:
    health = HostHealth()
    health.failed(now_s=0.0, retry_after_s=None, is_login=True)
    assert not is_open(health)
    health.failed(now_s=0.0, retry_after_s=None, is_login=True)
    assert (health.circuit, health.seems_down) == ("open", False)


@pytest.mark.parametrize("asked_s", [7.0, HOUR_S])
def test_a_pause_holds_everybody_and_counts_as_no_failure(asked_s: float) -> None:
    health = HostHealth()
    for _ in range(200):
        health.failed(now_s=0.0, retry_after_s=asked_s)
    assert (health.circuit, health.overlong_s) == ("closed", None)
    for patient in (True, False):
        assert health.admit(now_s=0.0, patient=patient) == asked_s
        assert health.admit(now_s=asked_s, patient=patient) == asked_s


def test_a_pause_of_no_time_is_a_failure_like_any_other() -> None:
    health = HostHealth()
    for _ in range(100):
        health.failed(now_s=0.0, retry_after_s=0.0)
    assert is_open(health)


def test_a_pause_of_more_than_an_hour_is_held_for_an_hour_and_then_probed_once_a_minute() -> None:
    health = HostHealth()
    for _ in range(64):  # that were in flight together
        health.failed(now_s=0.0, retry_after_s=YEAR_S)
    assert health.overlong_s == YEAR_S
    health.succeeded(now_s=1.0)  # of a request that was sent before
    assert health.admit(now_s=1.0, patient=True) == MAX_HOLD_S == HOUR_S
    assert health.admit(now_s=1.0, patient=False) == YEAR_S
    now_s = HOUR_S
    for _ in range(10):
        assert admitted(health, now_s) == 1
        health.failed(now_s=now_s + 1.0, retry_after_s=YEAR_S)
        assert health.admit(now_s=now_s + 1.0, patient=False) > YEAR_S
        assert admitted(health, now_s + 60.9) == 0
        now_s += 61.0


def test_a_success_after_a_long_pause_ends_it() -> None:
    health = HostHealth()
    health.failed(now_s=0.0, retry_after_s=YEAR_S)
    assert admitted(health, HOUR_S) == 1
    assert health.succeeded(now_s=HOUR_S + 1)
    assert health.overlong_s is None
    for patient in (True, False):
        assert health.admit(now_s=HOUR_S + 1, patient=patient) == HOUR_S + 1


def test_a_shorter_pause_after_a_long_one_holds_for_as_long_as_it_says() -> None:
    health = HostHealth()
    health.failed(now_s=0.0, retry_after_s=YEAR_S)
    assert admitted(health, HOUR_S) == 1
    health.failed(now_s=HOUR_S + 1, retry_after_s=5.0)
    for patient in (True, False):
        assert health.admit(now_s=HOUR_S + 1, patient=patient) == HOUR_S + 6
