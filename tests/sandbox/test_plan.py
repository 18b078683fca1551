from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from printos_async import _errors
from printos_async.sandbox import Faults
from printos_async.sandbox._plan import Fate, FaultPlan

MIXED = Faults(
    seed=7,
    latency_s=(0.1, 0.2),
    latency_tail=0.1,
    rate_limited=0.1,
    server_error=0.1,
    reset=0.1,
    truncated=0.1,
    malformed=0.1,
    late_write=0.1,
    hang=0.1,
)


def fates(plan: FaultPlan, device_ids: list[str]) -> dict[str, list[Fate]]:
    drawn: dict[str, list[Fate]] = {}
    for device_id in device_ids:
        fate = plan.next("updateDeviceStatus", device_id, f"/devices/{device_id}/status", b"{}")
        drawn.setdefault(device_id, []).append(fate)
    return drawn


def test_fate_of_a_devices_requests_does_not_depend_on_what_comes_between() -> None:
    requests = [f"dev-{number % 10}" for number in range(200)]
    shuffled = random.Random(3).sample(requests, len(requests))

    assert fates(FaultPlan(MIXED), requests) == fates(FaultPlan(MIXED), shuffled)


def test_another_seed_gives_other_fates() -> None:
    requests = ["dev-1"] * 20
    other = Faults(seed=8, reset=0.5)

    assert fates(FaultPlan(Faults(seed=7, reset=0.5)), requests) != fates(FaultPlan(other), requests)


def test_setting_the_faults_again_starts_the_same_draws_again() -> None:
    plan = FaultPlan(MIXED)
    first = fates(plan, ["dev-1"] * 20)
    plan.use(MIXED)

    assert fates(plan, ["dev-1"] * 20) == first


def test_bodies_tell_provision_requests_apart() -> None:
    plan = FaultPlan(Faults(latency_s=(0.0, 1.0)))
    drawn = {plan.next("provisionDevice", None, "/devices", b"%d" % n).latency_s for n in range(10)}
    again = FaultPlan(Faults(latency_s=(0.0, 1.0)))

    assert drawn == {
        again.next("provisionDevice", None, "/devices", b"%d" % n).latency_s for n in reversed(range(10))
    }


def test_each_share_is_met() -> None:
    plan = FaultPlan(MIXED)
    drawn = [plan.next("updateDeviceStatus", "d", "/devices/d/status", b"") for _ in range(20_000)]
    kinds: Counter[str | None] = Counter(fate.kind for fate in drawn)

    # Five standard deviations of 20,000 draws with a share of 0.1 and of 0.05; the seed is fixed.
    for kind in ("rate_limited", "server_error", "truncated", "late_write"):
        assert kinds[kind] == pytest.approx(2000, abs=212)
    for kind in ("reset_before", "reset_after", "hang_before", "hang_after"):
        assert kinds[kind] == pytest.approx(1000, abs=155)
    assert kinds["malformed"] == 0
    slow = [fate for fate in drawn if fate.latency_s > 0.2]
    assert len(slow) == pytest.approx(2000, abs=212)
    assert all(0.1 <= fate.latency_s <= 2.2 for fate in drawn)


@pytest.mark.parametrize(
    "settings",
    [
        {"reset": 1.1},
        {"reset": -0.1},
        {"reset": float("nan")},
        {"reset": 0.6, "hang": 0.6},
        {"latency_s": -1.0},
        {"latency_s": (2.0, 1.0)},
        {"late_write_by_s": (1.0, 0.5)},
        {"server_error_statuses": ()},
        {"server_error_statuses": (404,)},
        {"malformed_kinds": ("odd",)},
        {"late_write_answers": ()},
        {"operations": ("deleteDevice",)},
    ],
)
def test_impossible_faults_are_refused_with_the_settings_name(settings: dict[str, Any]) -> None:
    with pytest.raises(_errors.ConfigurationError, match=next(iter(settings))):
        Faults(**settings)


@pytest.mark.parametrize("times", [0, -1, 1.5])
def test_a_fault_is_injected_once_at_least(times: Any) -> None:
    with pytest.raises(_errors.ConfigurationError, match="times must be a whole number of at least 1"):
        FaultPlan(Faults()).inject("reset_before", times=times, operation=None, device_id=None)


def test_unknown_fault_cannot_be_injected() -> None:
    with pytest.raises(_errors.ConfigurationError, match="reset_before"):
        FaultPlan(Faults()).inject("earthquake", times=1, operation=None, device_id=None)  # type: ignore[arg-type]
