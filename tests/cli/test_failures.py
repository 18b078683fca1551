from __future__ import annotations

import json
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import DeviceStatusUpdate, StatusPush
from printos_async.cli.push.files import FailuresFile
from printos_async.cli.terminal.output import CommandError

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from pathlib import Path


def push(device_id: str, word: Any) -> StatusPush:
    return StatusPush(device_id, DeviceStatusUpdate(status=word))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]


def test_what_failed_is_there_at_once_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "failures.jsonl"
    with FailuresFile(path) as failures:
        failures.keep(push("a", "DS_ON"))
        assert lines(path) == [{"deviceId": "a", "status": "DS_ON"}]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_old_status_does_not_outlive_a_newer_one_of_its_device(tmp_path: Path) -> None:
    path = tmp_path / "failures.jsonl"
    with FailuresFile(path) as failures:
        failures.keep(push("failed twice", "OLD"))
        failures.keep(push("sent later", "OLD"))
        failures.keep(push("other", "DS_ON"))
        failures.keep(push("failed twice", "a longer NEW"))
        failures.drop("sent later")
        failures.drop("never failed")
        failures.keep(push("last", "DS_ON"))
    assert lines(path) == [
        {"deviceId": "other", "status": "DS_ON"},
        {"deviceId": "failed twice", "status": "a longer NEW"},
        {"deviceId": "last", "status": "DS_ON"},
    ]


def test_what_the_file_holds_stays_and_half_a_line_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "failures.jsonl"
    path.write_bytes(b'{"deviceId":"a","status":"FIRST"}\n{"deviceId"')
    with FailuresFile(path) as failures:
        failures.keep(push("a", "SECOND"))
    first, half, second = path.read_bytes().splitlines()
    assert json.loads(first)["status"] == "FIRST"
    assert half == b'{"deviceId"'
    assert json.loads(second)["status"] == "SECOND"


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_line_that_does_not_fit_leaves_nothing_before_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "failures.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with FailuresFile(path) as failures:
        failures.keep(push("a", "DS_ON"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                failures.keep(push("b", "DS_ON"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [each["deviceId"] for each in lines(path)] == ["a"]
        failures.keep(push("c", "DS_ON"))
        failures.keep(push("a", "DS_OFF"))
    assert [each["deviceId"] for each in lines(path)] == ["c", "a"]


def test_a_pipe_gets_every_line(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with FailuresFile(path) as failures:
            failures.keep(push("a", "1"))
            failures.keep(push("a", "2"))
            failures.drop("a")
        assert os.read(reader, 1000).count(b"\n") == 2
    finally:
        os.close(reader)


def test_a_file_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot write"):
        FailuresFile(tmp_path / "no" / "folder")
