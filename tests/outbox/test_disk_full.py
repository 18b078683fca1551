"""A disk that is full or fails loses no accepted status, is named in the error, and is used again when it recovers.

The faults are real: a small file system, a limit of the kernel, and system calls that strace makes fail.
"""

from __future__ import annotations

import collections
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from printos_async import OutboxError
from printos_async.outbox import Draft, SqlOutbox
from tests.crash.children import long_only

from .putter import ACCOUNT, body, stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PUTTER = Path(__file__).with_name("putter.py")
LONG = bool(os.environ.get("PRINTOS_LONG_TESTS"))
DEVICES, COUNT = 3, 8
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the faults are those of POSIX systems"),
    long_only,
]


def put(path: Path, *options: str, before: Sequence[str] = ()) -> tuple[int, list[dict[str, object]]]:
    """Run the putter on an outbox; gives exit code and what it said."""
    command = [*before, sys.executable, str(PUTTER), f"sqlite+aiosqlite:///{path}", "--devices", str(DEVICES)]
    ended = subprocess.run(
        [*command, "--count", str(COUNT), *options],
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()]


def environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])}


async def check(path: Path, said: list[dict[str, object]]) -> dict[str, int]:
    """Every accepted status is in the outbox, or a newer one of its device, and nothing was set aside."""
    accepted: dict[str, int] = {}
    for line in said:
        if "device" in line:
            accepted[str(line["device"])] = int(str(line["number"]))
    found = await stored(f"sqlite+aiosqlite:///{path}")
    assert not list(path.parent.glob("*damaged*"))
    for device, number in accepted.items():
        assert number <= found.get(device, -1) <= COUNT, device
    return accepted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir(mode=0o700)
    if shutil.which("mount") is None:
        pytest.skip("no mount command")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"only with the right to mount: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        # Lazily: a test that failed may have left its outbox open, and the mount is to go in any case.
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_is_named_loses_nothing_and_is_used_again_when_there_is_room(
    small_disk: Path,
) -> None:
    url = f"sqlite+aiosqlite:///{small_disk / 'spool.db'}"
    outbox = SqlOutbox(url)
    await outbox.open(ACCOUNT)
    ballast = small_disk / "ballast"
    accepted: dict[str, int] = {}
    for round_number in range(3):
        with ballast.open("wb") as file:
            file.write(bytes(shutil.disk_usage(small_disk).free - 64 * 1024))
        errors = []
        for number in range(200):
            device = f"dev-{round_number}-{number}"
            try:
                await outbox.put([Draft(device, body(device, number))])
            except OutboxError as error:
                errors.append(error)
            else:
                accepted[device] = number
        assert errors
        assert {type(error) for error in errors} == {OutboxError}
        assert all(f"{small_disk}/spool.db: the disk is full" in str(error) for error in errors), errors
        ballast.unlink()
        device = f"dev-{round_number}-after"
        await outbox.put([Draft(device, body(device, 1))])
        accepted[device] = 1
    await outbox.aclose()
    found = await stored(url)
    assert accepted.items() <= found.items()


async def test_a_full_disk_at_the_start_is_named(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free))
    outbox = SqlOutbox(f"sqlite+aiosqlite:///{small_disk / 'spool.db'}")
    with pytest.raises(OutboxError, match="disk is full"):
        await outbox.open(ACCOUNT)
    ballast.unlink()
    await outbox.open(ACCOUNT)
    await outbox.put([Draft("dev-1", body("dev-1", 1))])
    await outbox.aclose()


async def test_a_limit_of_the_files_size_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    code, said = put(path, "--file-limit-bytes", str(48 * 1024), "--count", "40", "--devices", "1")
    assert code == 0
    errors = collections.Counter(str(line["error"]) for line in said if "error" in line)
    assert set(errors) == {"OutboxError"}
    found = await stored(f"sqlite+aiosqlite:///{path}")
    assert found == {"dev-0": 40}


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """Numbers of system calls with possible faults: of opening and closing, and of a whole run."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    folder = tmp_path_factory.mktemp("calls")
    trace = folder / "trace"
    command = [strace, "-f", "-qq", "-o", str(trace), "-e", "trace=pwrite64,fdatasync"]
    tried = subprocess.run([*command, "true"], check=False, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"strace may not trace: {tried.stderr.strip()}")
    runs = []
    for devices in (0, DEVICES):
        code, _ = put(folder / "spool.db", "--devices", str(devices), before=command)
        assert code == 0
        # strace counts for each thread, and one thread does most.
        counted = collections.Counter(
            (line.split()[1].split("(")[0], line.split()[0])
            for line in trace.read_text().splitlines()
            if "(" in line
        )
        runs.append(counted)
        shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
    return {
        name: [max(number for (seen, _), number in run.items() if seen == name) for run in runs]
        for name in ("pwrite64", "fdatasync")
    }


FAULTS = [
    ("pwrite64", "error=ENOSPC"),
    ("pwrite64", "error=EIO"),
    ("fdatasync", "error=EIO"),
    ("fdatasync", "error=ENOSPC"),
    ("pwrite64", "signal=KILL"),
    ("fdatasync", "signal=KILL"),
]


def moments(calls: int) -> list[int]:
    """Each call in turn; in the short form three: at the opening, in the middle, near the end."""
    return list(range(1, calls + 1)) if LONG else [2, calls // 2, calls - 1]


@pytest.mark.parametrize(("call", "fault"), FAULTS)
async def test_a_fault_in_any_write_loses_nothing(
    tmp_path: Path, calls: dict[str, list[int]], call: str, fault: str
) -> None:
    opening, all_of_them = calls[call]
    for moment in moments(all_of_them):
        path = tmp_path / str(moment) / "spool.db"
        trace = tmp_path / "trace"
        inject = f"inject={call}:{fault}:when={moment}"
        code, said = put(
            path, before=["strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={call}", "-e", inject]
        )
        accepted = await check(path, said)
        seen = trace.read_text()
        if fault == "signal=KILL":
            assert code == -9 or "killed by SIGKILL" in seen or "INJECTED" not in seen
            continue
        assert "INJECTED" in seen, inject
        if code:
            # strace counts anew for each thread, so a fault of the opening hits every opening.
            assert moment <= opening
            assert all("SQLITE_" in str(line["text"]) for line in said), said
        else:
            assert accepted == {f"dev-{index}": COUNT for index in range(DEVICES)}, inject


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
async def test_a_disk_that_fails_for_good_accepts_nothing_more(
    tmp_path: Path, calls: dict[str, list[int]], call: str
) -> None:
    path = tmp_path / "spool.db"
    inject = f"inject={call}:error=EIO:when={sum(calls[call]) // 2}+"
    code, said = put(
        path,
        before=["strace", "-f", "-qq", "-o", str(tmp_path / "trace"), "-e", f"trace={call}", "-e", inject],
    )
    assert code == 0
    first_error = next(index for index, line in enumerate(said) if "error" in line)
    assert all("SQLITE_IOERR" in str(line.get("text")) for line in said[first_error:]), said
    await check(path, said)
