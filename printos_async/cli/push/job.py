"""One run of ``printos push``, from the source to the report."""

from __future__ import annotations

import time
from functools import partial
from typing import IO, TYPE_CHECKING

from attrs import define, field

from printos_async._models import DeviceStatusUpdate, StatusPush
from printos_async.cli.credentials.hangup import reread_files
from printos_async.cli.input.lines import ParsedLines
from printos_async.cli.input.records import status_of
from printos_async.cli.terminal.log import REPORTED_EVENTS, LibraryWarnings
from printos_async.cli.terminal.outages import OutageLines
from printos_async.cli.terminal.output import count_statuses, unreadable
from printos_async.cli.terminal.progress import live_progress
from printos_async.cli.terminal.signals import StopSignals, run_until

from .counts import Counts
from .report import PushReport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from printos_async._client import PrintOSClient
    from printos_async._events import Hook
    from printos_async.cli.input.records import Format
    from printos_async.cli.input.source import Source

    from .files import FailuresFile
    from .modes import Mode


@define(eq=False)
class PushJob:
    """Pushes the statuses of a source.

    Attributes:
        source: The open source.
        file_format: The format of its lines.
        mode: Hands the statuses over.
        strict: Send nothing if a line is bad.
        failures: Keeps statuses that were not sent.
        bad_lines_file: Keeps bad lines.
        signals: Ctrl-C and SIGTERM.
        lines: The lines of the source.
        counts: The outcomes.
        hooks: Hooks for the client.
        sent_anything: Whether sending has begun.
    """

    source: Source
    file_format: Format
    mode: Mode
    strict: bool = field(kw_only=True)
    failures: FailuresFile | None = field(kw_only=True)
    bad_lines_file: IO[bytes] | None = field(kw_only=True)
    signals: StopSignals = field(init=False)
    lines: ParsedLines[StatusPush] = field(init=False)
    counts: Counts = field(init=False)
    hooks: list[Hook] = field(init=False)
    sent_anything: bool = field(default=False, init=False)
    _outage_lines: OutageLines = field(factory=OutageLines, init=False)

    def __attrs_post_init__(self) -> None:
        mode = self.mode
        self.signals = StopSignals(grace_s=mode.grace_s)
        self.lines = self._from_the_start()
        stop = self.signals.stopping
        self.counts = Counts(failures=self.failures, stop=stop, has_pusher=mode.has_pusher)
        self.hooks = [self.counts.on_event]
        if mode.monitor is not None:
            # Only a pusher waits for the end of an outage: the statuses of a bulk push fail at once.
            self.hooks += [self._outage_lines.on_event, *mode.monitor.hooks]

    async def run(self, client: PrintOSClient | None) -> PushReport:
        """Read and send, and close the client; without one, read every line and send nothing."""
        started_s = time.perf_counter()
        if client is not None:
            reread, monitor = partial(reread_files, client), self.mode.monitor
            self.signals.on_hangup = reread if monitor is None else monitor.announcing(reread)
        with self.signals, self._outage_lines:
            if client is None:
                await self._check()
            else:
                async with client:
                    await self._push(client)
        elapsed_s = time.perf_counter() - started_s
        return PushReport(self, is_dry_run=client is None, elapsed_s=elapsed_s)

    async def _push(self, client: PrintOSClient) -> None:
        if self.strict:
            await self.source.spool(stop=self.signals.stopping)
            await self._check()
            if self.lines.bad_lines or self.signals.stopping.is_set():
                return
            self.source.rewind()
            self.lines = self._from_the_start()
        self.sent_anything = True
        await self._send(client)

    def _from_the_start(self) -> ParsedLines[StatusPush]:
        return ParsedLines(
            self.source,
            self.file_format,
            DeviceStatusUpdate,
            status_of,
            stop=self.signals.stopping,
            bad_lines_file=self.bad_lines_file,
        )

    async def _check(self) -> None:
        lines = self.lines

        def sample() -> tuple[float, str]:
            bad = f" · {unreadable(lines.bad_lines)}" if lines.bad_lines else ""
            return self.source.bytes_read, f"{count_statuses(lines.values)}{bad}"

        async with live_progress("Checking", total=self.source.size_bytes, sample=sample):
            try:
                async for _ in lines:
                    pass
            except OSError as error:
                self._on_file_error(error)

    async def _send(self, client: PrintOSClient) -> None:
        lines, counts, signals, mode = self.lines, self.counts, self.signals, self.mode
        started_s = time.perf_counter()

        def sample() -> tuple[float, str]:
            progress = mode.progress(counts, time.perf_counter() - started_s)
            return self.source.bytes_read, progress + signals.progress_suffix

        # A failure is named once: by the warning of the pusher if there is one, otherwise by the counts.
        warnings = LibraryWarnings(except_for=REPORTED_EVENTS if mode.has_pusher else {"StatusFailed"})
        async with live_progress(
            "Pushing", total=self.source.size_bytes, sample=sample, has_bar=not mode.has_pusher
        ):
            try:
                with warnings:
                    await run_until(signals.giving_up, mode.run(client, self._statuses(), counts))
            finally:
                counts.give_up(lines.left_over())

    async def _statuses(self) -> AsyncGenerator[StatusPush, None]:
        try:
            async for push in self.lines:
                self.counts.on_handed_over(push)
                yield push
        except OSError as error:  # a disk that fails; what came before is sent
            self._on_file_error(error)

    def _on_file_error(self, error: OSError) -> None:
        what = "read" if error.filename is None else f"write {error.filename}, nor read on in"
        self.counts.end_reading(f"cannot {what} {self.source.name}: {error.strerror}")
