from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from printos_async._models import DeviceStatusUpdate
from printos_async.cli.input.lines import ParsedLines
from printos_async.cli.input.records import BadLineError, JsonLines, status_of
from printos_async.cli.input.source import MAX_LINE_BYTES, Line, Source
from printos_async.cli.terminal.output import CommandError
from printos_async.cli.terminal.signals import StopSignals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from printos_async.cli.input.records import Format

WANTED = b'{"deviceId":"dev-%d","status":"DS_ON"}\n'


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A named pipe and the end that is written to."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    # Opened for both, so that neither side waits for the other.
    writer = os.open(path, os.O_RDWR)
    yield path, writer
    os.close(writer)


async def read_all(path: Path) -> list[Line]:
    with Source(str(path)) as source:
        return [line async for batch in source.batches(stop=asyncio.Event()) for line in batch]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\xef\xbb\xbf", [b"\xef\xbb\xbf"]),
        (b"\xef\xbb\xbfa\n", [b"\xef\xbb\xbfa"]),
        (b"a\r\n\nb", [b"a\r", b"", b"b"]),
        (b"a\n\xef\xbb\xbfb\n", [b"a", b"\xef\xbb\xbfb"]),
        (b"x" * 200_000 + b"\n" + b"y" * 70_000, [b"x" * 200_000, b"y" * 70_000]),
    ],
)
async def test_lines_are_numbered_and_whole_across_reads(
    tmp_path: Path, content: bytes, lines: list[bytes]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert await read_all(path) == [Line(number, data) for number, data in enumerate(lines, 1)]


class Bytewise(Source):
    """A file that is read byte by byte, as a slow pipe may be."""

    def read(self) -> bytes:
        return os.read(self.file_descriptor, 1)


@pytest.mark.parametrize(
    ("file_format", "content"),
    [("jsonl", WANTED % 1), ("csv", b"deviceId,status\r\ndev-1,DS_ON\r\n")],
)
async def test_a_byte_order_mark_may_come_in_pieces_and_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file_format: Format, content: bytes
) -> None:
    path = tmp_path / "file"
    path.write_bytes((b"\xef\xbb\xbf" + content) * 2)
    with Bytewise(str(path)) as source:
        lines = ParsedLines(source, file_format, DeviceStatusUpdate, status_of, stop=asyncio.Event())
        assert [push.device_id async for push in lines] == ["dev-1", "dev-1"]
    assert (lines.bad_lines, capsys.readouterr().err) == (0, "")


async def test_utf_16_is_seen_though_its_mark_comes_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes((WANTED % 1).decode().encode("utf-16"))
    with Bytewise(str(path)) as source:
        batches = source.batches(stop=asyncio.Event())
        with pytest.raises(CommandError, match="is UTF-16"):
            await anext(batches)


@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_a_line_that_is_too_long_is_cut(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(
        b"x" * (MAX_LINE_BYTES + 1) + b"\n" + b"y" * MAX_LINE_BYTES + b"\n" + b"z" * 2_500_000 + end
    )
    first, second, third = await read_all(path)
    assert len(first.data) == MAX_LINE_BYTES + 1
    assert len(second.data) == MAX_LINE_BYTES
    assert (len(third.data), third.number) == (MAX_LINE_BYTES + 1, 3)
    parser = JsonLines()
    for line in (first, third):
        with pytest.raises(BadLineError, match=f"is longer than {MAX_LINE_BYTES} bytes"):
            parser.parse(line.data)
    with pytest.raises(BadLineError, match="is not valid JSON"):
        parser.parse(second.data)


async def test_reading_a_silent_pipe_holds_nobody_up_and_ends_when_asked_to(pipe: tuple[Path, int]) -> None:
    path, writer = pipe
    stop = asyncio.Event()
    source = Source(str(path))
    os.write(writer, b"a\nhalf")
    batches = source.batches(stop=stop)
    assert await anext(batches) == [Line(1, b"a")]
    asyncio.get_running_loop().call_soon(stop.set)
    async with asyncio.timeout(20):
        assert [batch async for batch in batches] == []
    os.write(writer, b"\n")  # lets the thread that still reads go
    source.close()


def test_a_read_that_ends_after_the_event_loop_says_nothing(
    pipe: tuple[Path, int], caplog: pytest.LogCaptureFixture
) -> None:
    path, writer = pipe
    source = Source(str(path))

    async def read_until_stopped() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_soon(stop.set)
        assert [chunk async for chunk in source.chunks(stop=stop)] == []

    before = set(threading.enumerate())
    asyncio.run(read_until_stopped())
    os.write(writer, b"late")
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert not caplog.records
    source.close()


async def test_what_was_read_from_a_pipe_and_not_handed_out_is_not_lost(pipe: tuple[Path, int]) -> None:
    path, writer = pipe
    stop = asyncio.Event()
    source = Source(str(path))
    os.write(writer, b"".join(WANTED % number for number in range(3)))
    lines = ParsedLines(source, "jsonl", DeviceStatusUpdate, status_of, stop=stop)
    handed_out = []
    async for push in lines:
        handed_out.append(push.device_id)
        stop.set()
    assert handed_out == ["dev-0"]
    assert [push.device_id for push in lines.left_over()] == ["dev-1", "dev-2"]


async def test_lines_of_a_file_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(b"".join(WANTED % number for number in range(3)))
    stop = asyncio.Event()
    with Source(str(path)) as source:
        lines = ParsedLines(source, "jsonl", DeviceStatusUpdate, status_of, stop=stop)
        async for _ in lines:
            stop.set()
        assert lines.left_over() == []
        assert lines.last_line == 1


async def test_reading_leaves_no_thread_behind(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a\nb\n")
    before = set(threading.enumerate())
    await read_all(path)
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()


async def test_the_first_signal_stops_and_time_gives_up() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals(grace_s=0.0) as signals:
        assert not signals.stopping.is_set()
        signal.raise_signal(signal.SIGTERM)
        await signals.stopping.wait()
        assert signals.received is signal.SIGTERM
        await signals.giving_up.wait()
    assert signal.getsignal(signal.SIGTERM) is before


async def test_the_second_signal_gives_up_at_once() -> None:
    with StopSignals(grace_s=3600.0) as signals:
        signal.raise_signal(signal.SIGINT)
        await signals.stopping.wait()
        assert not signals.giving_up.is_set()
        signal.raise_signal(signal.SIGTERM)
        await signals.giving_up.wait()
        assert signals.received is signal.SIGINT


async def test_a_signal_that_another_thread_receives_wakes_the_waiting_loop() -> None:
    waits = threading.Event()

    def receive() -> None:
        waits.wait()
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    thread = threading.Thread(target=receive)
    with StopSignals(grace_s=3600.0) as signals:
        thread.start()
        asyncio.get_running_loop().call_soon(waits.set)  # the loop then has nothing to do but wait
        async with asyncio.timeout(10):
            await signals.stopping.wait()
    thread.join()
