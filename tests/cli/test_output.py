"""JSON objects made of values: their members are documented, the names of the values' fields are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from printos_async.cli.checks.finding import Finding, ok
from printos_async.cli.demo.report import DemoReport
from printos_async.cli.push.counts import Failure
from printos_async.cli.terminal.output import members
from printos_async.outbox import DeviceDelivery, OutboxStats

if TYPE_CHECKING:
    import attrs


def names(value: attrs.AttrsInstance) -> str:
    return " ".join(members(value))


def test_the_members_of_json_objects_are_the_documented_ones() -> None:
    stats = OutboxStats(devices=1, waiting=1, claimed=0, failed=0, workers=0, oldest_waiting_s=2.5)
    assert names(stats) == "devices waiting claimed failed workers oldestWaitingS"
    assert members(stats)["oldestWaitingS"] == 2.5
    device = DeviceDelivery(device_id="a", delivered_age_s=None, waiting_s=1, failed_age_s=None, error=None)
    assert names(device) == "deviceId deliveredAgeS waitingS failedAgeS error"
    assert names(Failure("a", "NotFoundError", "no such device", 1)) == "deviceId error message attempts"
    assert members(ok("name", "found")) == {
        "check": "name",
        "outcome": "ok",
        "detail": "found",
        "remedy": None,
    }
    assert names(Finding("name", "failed", "not found", "look")) == "check outcome detail remedy"
    assert " ".join(DemoReport(seed=0, limits=[8]).to_json()["engine"]) == (
        "lateWrites overwritten reasserted circuitOpened refused accountHeld accountResumed limit"
    )
