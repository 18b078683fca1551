"""The facade with the client of ``additive.yml``: what HP adds can be sent, and is checked, with no line changed.

``nox -s drill`` runs this in a copy of the repository; with today's client it cannot pass, and is not collected.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from printos_device_api.models import Alert

from printos_async import (
    DeviceProvisionRequest,
    DeviceStatusUpdate,
    DeviceStatusUpdateMetrics,
    InvalidProvisionRequestError,
    InvalidStatusError,
    PrintOSClient,
)
from tests.cli.conftest import Cli
from tests.conftest import KEY, SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from printos_async.sandbox import Sandbox

WHEN = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
SENT = {
    "status": "DS_CALIBRATING",
    "timestamp": "2026-11-21T08:30:00+00:00",
    "operator": "Ada",
    "isAttended": True,
    "note": None,
    "jdfURL": "https://shop.example/1.jdf",
    "alerts": [{"code": "E-7", "severity": "WARNING", "raisedAt": "2026-11-21T08:30:00+00:00"}],
    "colorants": ["C", "M"],
    "metrics": {"pagesTotal": 12, "jobsTotal": 3, "inkLevel": 0.5},
}


@pytest.fixture
async def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> AsyncIterator[Cli]:
    cli = Cli(capsys, tmp_path)
    yield cli
    await cli.end_all()


@pytest.fixture
def _environment(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> None:
    monkeypatch.setenv("PRINTOS_BASE_URL", sandbox.url)
    monkeypatch.setenv("PRINTOS_KEY", KEY)
    monkeypatch.setenv("PRINTOS_SECRET", SECRET)


def status() -> DeviceStatusUpdate:
    return DeviceStatusUpdate(
        status="DS_CALIBRATING",
        timestamp=WHEN,
        operator="Ada",
        is_attended=True,
        note=None,
        jdf_url="https://shop.example/1.jdf",
        alerts=[Alert(code="E-7", severity="WARNING", raised_at=WHEN)],
        colorants=["C", "M"],
        metrics=DeviceStatusUpdateMetrics(pages_total=12, jobs_total=3, ink_level=0.5),
    )


async def test_one_status_takes_the_new_fields(client: PrintOSClient, sandbox: Sandbox) -> None:
    await client.update_device_status("dev-1", status())
    assert sandbox.devices["dev-1"].status == SENT


async def test_a_push_takes_the_new_fields(client: PrintOSClient, sandbox: Sandbox) -> None:
    report = await client.push_statuses({f"dev-{number}": status() for number in range(5)})
    report.raise_for_failures()
    assert [sandbox.devices[f"dev-{number}"].status for number in range(5)] == [SENT] * 5


async def test_a_device_has_the_new_fields(client: PrintOSClient) -> None:
    device = await client.provision_device(
        model="Indigo", serial_number="SN-1", device_class="PRESS", commissioned_at=WHEN, labels=["a"]
    )
    assert device.id in [listed.id for listed in await client.list_devices()]
    request = DeviceProvisionRequest(
        model="Indigo", serial_number="SN-2", device_class="FINISHER", is_demo=True
    )
    [result] = await client.provision_devices([request])
    assert result.outcome == "provisioned"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"status": "DS_DANCING"}, "status"),
        ({"timestamp": "noon"}, "timestamp"),
        ({"operator": 7}, "operator"),
        ({"colorants": ["C", 1]}, "colorants"),
        ({"alerts": [{"code": "E-7"}]}, "alerts"),
        ({"metrics": 5}, "metrics"),
        ({"metrics": DeviceStatusUpdateMetrics(jobs_total="many")}, "jobsTotal"),  # type: ignore[arg-type]
    ],
    ids=["word", "date", "text", "item", "object", "metrics", "number"],
)
async def test_a_wrong_value_is_a_typed_error(
    client: PrintOSClient, sandbox: Sandbox, wrong: dict[str, object], told: str
) -> None:
    refused = status()
    for name, value in wrong.items():
        setattr(refused, name, value)
    with pytest.raises(InvalidStatusError, match=told):
        await client.update_device_status("dev-1", refused)
    report = await client.push_statuses({"dev-1": refused, "dev-2": status()})
    assert (report.sent, report.failed) == (1, 1)
    assert isinstance(report.failures[0].error, InvalidStatusError)
    assert sandbox.devices["dev-1"].status is None


async def test_a_wrong_word_of_a_provision_request_is_a_typed_error(client: PrintOSClient) -> None:
    with pytest.raises(InvalidProvisionRequestError, match="deviceClass"):
        await client.provision_device(model="Indigo", serial_number="SN-1", device_class="TOASTER")


LINES = [
    {"deviceId": "dev-1", **SENT},
    {"deviceId": "dev-2", "status": "DS_DANCING"},
    {"deviceId": "dev-2", "operator": "no status"},
    {"deviceId": "dev-2", "status": "DS_ON", "timestamp": "noon"},
    {"deviceId": "dev-2", "status": "DS_ON", "metrics": {"jobsTotal": "many"}},
    {"deviceId": "dev-2", "status": "DS_ON", "timestamp": "2026-11-21T09:30:00+01:00"},
]


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["push", "dry run"])
async def test_json_lines_take_the_new_fields_and_bad_lines_are_told_by_number(
    cli: Cli, sandbox: Sandbox, options: tuple[str, ...]
) -> None:
    file = cli.file("s.jsonl", "".join(json.dumps(line) + "\n" for line in LINES))
    ended = await cli.run("push", file, "--json", *options)
    assert (ended.code, ended.json["statuses"], ended.json["badLines"]) == (1, 2, 4), ended
    assert [text.split(": ")[1] for text in ended.err.splitlines()] == [
        f"{file}, line {number}" for number in (2, 3, 4, 5)
    ]
    if not options:
        assert sandbox.devices["dev-1"].status == SENT
        assert sandbox.devices["dev-2"].status is not None
        assert sandbox.devices["dev-2"].status["timestamp"] == "2026-11-21T09:30:00+01:00"


CSV = """\
deviceId,status,timestamp,operator,jobsTotal,isAttended
dev-1,DS_PRINTING,2026-11-21T08:30:00+00:00,Ada,3,true
dev-2,DS_DANCING,,,,
dev-2,DS_ON,noon,,,
dev-2,,,Ada,,
dev-2,DS_ON,,,many,
"""


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["push", "dry run"])
async def test_csv_takes_the_new_columns_and_bad_lines_are_told_by_number(
    cli: Cli, sandbox: Sandbox, options: tuple[str, ...]
) -> None:
    file = cli.file("s.csv", CSV)
    ended = await cli.run("push", file, "--json", *options)
    assert (ended.code, ended.json["statuses"], ended.json["badLines"]) == (1, 1, 4), ended
    assert [text.split(": ")[1] for text in ended.err.splitlines()] == [
        f"{file}, line {number}" for number in (3, 4, 5, 6)
    ]
    if not options:
        assert sandbox.devices["dev-1"].status == {
            "status": "DS_PRINTING",
            "timestamp": "2026-11-21T08:30:00+00:00",
            "operator": "Ada",
            "isAttended": True,
            "metrics": {"jobsTotal": 3},
        }
