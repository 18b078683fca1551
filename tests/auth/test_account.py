"""Refusals of an account: when it is held, when it is probed, when it resumes. Times are the test's own."""

from __future__ import annotations

import math

from printos_async import HmacAuth, SessionTokenAuth
from printos_async._auth.account import Account, Refusals


def held(*, by: str = "dev-1", now_s: float = 0.0) -> Refusals:
    refusals = Refusals()
    assert refusals.refused(by, is_certain=True, now_s=now_s)
    return refusals


def test_a_refusal_of_credentials_holds_at_once() -> None:
    refusals = held(now_s=100.0)
    assert refusals.is_held
    assert refusals.next_probe_s == 101.0


def test_ten_different_devices_that_are_refused_in_a_row_hold() -> None:
    refusals = Refusals()
    for _ in range(50):
        assert not refusals.refused("dev-1", is_certain=False, now_s=0.0)
    for device in range(2, 10):
        assert not refusals.refused(f"dev-{device}", is_certain=False, now_s=0.0)
    assert refusals.refused("dev-10", is_certain=False, now_s=0.0)
    assert refusals.is_held


def test_a_success_between_starts_the_count_again() -> None:
    refusals = Refusals()
    for device in range(9):
        refusals.refused(f"dev-{device}", is_certain=False, now_s=0.0)
    assert not refusals.succeeded("dev-100")
    assert refusals.are_over
    assert not refusals.refused("dev-9", is_certain=False, now_s=0.0)


def test_probes_come_after_one_second_doubling_to_sixty() -> None:
    refusals = held()
    now_s, delays = 0.0, []
    for device in range(9):
        delays.append(refusals.next_probe_s - now_s)
        now_s = refusals.next_probe_s
        refusals.start_probe(f"dev-{device}")
        assert refusals.next_probe_s == math.inf
        refusals.probe_ended(f"dev-{device}", now_s=now_s)
        assert not refusals.refused(f"dev-{device}", is_certain=True, now_s=now_s)
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_only_the_probe_says_when_the_next_one_comes() -> None:
    refusals = held()
    refusals.start_probe("dev-1")
    for device in range(2, 60):  # in flight when the account was held
        refusals.probe_ended(f"dev-{device}", now_s=0.5)
        refusals.refused(f"dev-{device}", is_certain=True, now_s=0.5)
    assert refusals.next_probe_s == math.inf


def test_a_probe_that_says_nothing_is_followed_by_another_at_the_same_pace() -> None:
    refusals = held()
    refusals.start_probe("dev-1")
    refusals.probe_ended("dev-1", now_s=10.0)  # a timeout, say
    assert refusals.next_probe_s == 11.0


def test_new_credentials_are_probed_at_once() -> None:
    refusals = held()
    for device in range(8):
        refusals.start_probe(f"dev-{device}")
        refusals.refused(f"dev-{device}", is_certain=True, now_s=float(device))
    refusals.probe_at(10.0)
    assert refusals.next_probe_s == 10.0
    refusals.start_probe("dev-1")
    refusals.refused("dev-1", is_certain=True, now_s=10.0)
    assert refusals.next_probe_s == 12.0


def test_any_success_resumes() -> None:
    refusals = held(by="dev-1")
    assert refusals.succeeded("dev-1")
    assert refusals.are_over
    assert not refusals.succeeded("dev-1")


def test_a_device_that_is_refused_while_others_get_through_holds_them_once() -> None:
    refusals = held(by="odd")
    assert refusals.succeeded("dev-1")
    is_remembered = not refusals.are_over
    assert is_remembered
    assert not refusals.refused("odd", is_certain=True, now_s=5.0)
    refusals.succeeded("odd")
    assert refusals.are_over
    assert refusals.refused("odd", is_certain=True, now_s=6.0)


def test_labels_name_an_account_without_its_secret() -> None:
    assert Account(HmacAuth("k123456", "hidden")).label == "key k123…"
    assert Account(SessionTokenAuth("printer-1", "hidden")).label == "login prin…"
    assert Account(HmacAuth("k123456", "hidden"), "dev-1").label == "device dev-1"
    assert Account(None).label == "no credentials"
    assert "hidden" not in repr(Account(HmacAuth("k123456", "hidden")))
