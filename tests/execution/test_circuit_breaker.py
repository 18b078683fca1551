"""The circuit breaker and the gate that Retry-After closes, on times given by hand."""

from __future__ import annotations

import pytest

from printos_async._execution.circuit_breaker import MAX_HOLD_S, CircuitBreaker

HOUR_S = 3_600.0
YEAR_S = 365 * 86_400.0


def fail(breaker: CircuitBreaker, times: int, *, now_s: float = 0.0, every_s: float = 0.0) -> float:
    """Note failures; gives the time of the last one."""
    for number in range(times):
        breaker.failed(now_s=now_s + number * every_s, retry_after_s=None)
    return now_s + (times - 1) * every_s


def open_circuit() -> CircuitBreaker:
    breaker = CircuitBreaker()
    fail(breaker, 100)
    assert is_open(breaker)
    return breaker


def is_open(breaker: CircuitBreaker) -> bool:
    return breaker.circuit == "open"


def admitted(breaker: CircuitBreaker, now_s: float) -> int:
    """Count the probes that are admitted at once."""
    count = 0
    while breaker.admit(now_s=now_s, patient=True) <= now_s:
        count += 1
        assert count < 1_000
    return count


@pytest.mark.parametrize(("failures", "every_s"), [(100, 0.0), (20, 2.0 / 19), (5, 0.75)])
def test_failures_in_a_row_open_the_circuit_the_sooner_the_more_there_are(
    failures: int, every_s: float
) -> None:
    breaker = CircuitBreaker()
    fail(breaker, failures - 1, every_s=every_s)
    assert not is_open(breaker)
    breaker.failed(now_s=(failures - 1) * every_s + 1e-9, retry_after_s=None)
    assert is_open(breaker)


@pytest.mark.parametrize(("failures", "every_s"), [(99, 0.0), (19, 2.9 / 19), (4, 100.0)])
def test_too_few_failures_or_in_too_short_a_time_do_not_open_it(failures: int, every_s: float) -> None:
    breaker = CircuitBreaker()
    for _ in range(10):
        fail(breaker, failures, every_s=every_s)
        breaker.succeeded(now_s=failures * every_s)
    assert not is_open(breaker)


def test_an_open_circuit_admits_a_probe_a_second() -> None:
    breaker = open_circuit()
    assert [admitted(breaker, now_s) for now_s in (0.0, 0.99, 1.0, 1.5, 1.99, 2.0, 5.0)] == [
        0,
        0,
        1,
        0,
        0,
        1,
        1,
    ]


def test_successes_admit_more_probes_and_the_third_closes_the_circuit() -> None:
    breaker = open_circuit()
    assert admitted(breaker, 1.0) == 1
    assert breaker.succeeded(now_s=1.1)
    assert is_open(breaker)
    assert admitted(breaker, 1.1) == 2
    assert breaker.succeeded(now_s=1.2)
    assert is_open(breaker)
    assert breaker.succeeded(now_s=1.2)
    assert not is_open(breaker)
    assert not breaker.succeeded(now_s=1.3)


def test_a_failed_probe_goes_back_to_one_a_second() -> None:
    breaker = open_circuit()
    assert admitted(breaker, 1.0) == 1
    breaker.succeeded(now_s=1.1)
    breaker.failed(now_s=1.1, retry_after_s=None)
    assert [admitted(breaker, now_s) for now_s in (1.1, 1.9, 2.0)] == [0, 0, 1]


def test_ten_failures_between_two_successes_make_the_earlier_ones_count_no_more() -> None:
    breaker = open_circuit()
    for now_s in (1.0, 2.0):
        breaker.succeeded(now_s=now_s)
    fail(breaker, 10, now_s=2.0)
    for now_s in (3.0, 4.0):
        breaker.succeeded(now_s=now_s)
    assert is_open(breaker)
    fail(breaker, 9, now_s=4.0)
    breaker.succeeded(now_s=5.0)
    assert not is_open(breaker)


def test_bulk_pushes_are_not_held_by_an_open_circuit() -> None:
    breaker = open_circuit()
    assert breaker.admit(now_s=0.0, patient=False) == 0.0


def test_refusals_for_load_open_the_circuit_but_do_not_look_like_a_host_that_is_down() -> None:
    breaker = CircuitBreaker()
    for _ in range(100):
        breaker.failed(now_s=0.0, retry_after_s=None, is_rate_limited=True)
    assert is_open(breaker)
    assert not breaker.seems_down
    fail(breaker, 10)
    assert breaker.seems_down


def test_two_logins_that_are_answered_so_are_enough() -> None:
    breaker = CircuitBreaker()
    breaker.failed(now_s=0.0, retry_after_s=None, is_login=True)
    assert not is_open(breaker)
    breaker.failed(now_s=0.0, retry_after_s=None, is_login=True)
    assert (breaker.circuit, breaker.seems_down) == ("open", False)


@pytest.mark.parametrize("asked_s", [7.0, HOUR_S])
def test_a_pause_holds_everybody_and_counts_as_no_failure(asked_s: float) -> None:
    breaker = CircuitBreaker()
    for _ in range(200):
        breaker.failed(now_s=0.0, retry_after_s=asked_s)
    assert (breaker.circuit, breaker.overlong_s) == ("closed", None)
    for patient in (True, False):
        assert breaker.admit(now_s=0.0, patient=patient) == asked_s
        assert breaker.admit(now_s=asked_s, patient=patient) == asked_s


def test_a_pause_of_no_time_is_a_failure_like_any_other() -> None:
    breaker = CircuitBreaker()
    for _ in range(100):
        breaker.failed(now_s=0.0, retry_after_s=0.0)
    assert is_open(breaker)


def test_a_pause_of_more_than_an_hour_is_held_for_an_hour_and_then_probed_once_a_minute() -> None:
    breaker = CircuitBreaker()
    for _ in range(64):  # that were in flight together
        breaker.failed(now_s=0.0, retry_after_s=YEAR_S)
    assert breaker.overlong_s == YEAR_S
    breaker.succeeded(now_s=1.0)  # of a request that was sent before
    assert breaker.admit(now_s=1.0, patient=True) == MAX_HOLD_S == HOUR_S
    assert breaker.admit(now_s=1.0, patient=False) == YEAR_S
    now_s = HOUR_S
    for _ in range(10):
        assert admitted(breaker, now_s) == 1
        breaker.failed(now_s=now_s + 1.0, retry_after_s=YEAR_S)
        assert breaker.admit(now_s=now_s + 1.0, patient=False) > YEAR_S
        assert admitted(breaker, now_s + 60.9) == 0
        now_s += 61.0


def test_a_success_after_a_long_pause_ends_it() -> None:
    breaker = CircuitBreaker()
    breaker.failed(now_s=0.0, retry_after_s=YEAR_S)
    assert admitted(breaker, HOUR_S) == 1
    assert breaker.succeeded(now_s=HOUR_S + 1)
    assert breaker.overlong_s is None
    for patient in (True, False):
        assert breaker.admit(now_s=HOUR_S + 1, patient=patient) == HOUR_S + 1


def test_a_shorter_pause_after_a_long_one_holds_for_as_long_as_it_says() -> None:
    breaker = CircuitBreaker()
    breaker.failed(now_s=0.0, retry_after_s=YEAR_S)
    assert admitted(breaker, HOUR_S) == 1
    breaker.failed(now_s=HOUR_S + 1, retry_after_s=5.0)
    for patient in (True, False):
        assert breaker.admit(now_s=HOUR_S + 1, patient=patient) == HOUR_S + 6
