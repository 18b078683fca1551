"""One run of ``printos push``, from the source to the report."""

from __future__ import annotations

import time
from typing import IO, TYPE_CHECKING

from printos_async.cli.credentials.hangup import refresher
from printos_async.cli.input.statuses import StatusLines
from printos_async.cli.terminal.accounts import AccountLines
from printos_async.cli.terminal.log import REPORTED_EVENTS, LibraryWarnings
from printos_async.cli.terminal.output import count_statuses, unreadable
from printos_async.cli.terminal.progress import live_progress
from printos_async.cli.terminal.signals import StopSignals

from .counts import Counts
from .report import PushReport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from printos_async._client import PrintOSClient
    from printos_async._models import StatusPush
    from printos_async.cli.input.records import Format
    from printos_async.cli.input.source import Source

    from .files import FailuresFile
    from .modes import Mode


class PushJob:
    """Pushes the statuses of a source.

    Args:
        source: The open source.
        file_format: The format of its lines.
        mode: Hands the statuses over.
        strict: Send nothing if a line is bad.
        failures: Keeps statuses that were not sent.
        bad_lines_file: Keeps bad lines.

    Attributes:
        counts: The outcomes.
        hooks: Hooks for the client.
    """

    def __init__(
        self,
        source: Source,
        file_format: Format,
        mode: Mode,
        *,
        strict: bool,
        failures: FailuresFile | None,
        bad_lines_file: IO[bytes] | None,
    ) -> None:
        self._source = source
        self._format = file_format
        self._mode = mode
        self._strict = strict
        self._bad_lines_file = bad_lines_file
        self._signals = StopSignals(grace_s=mode.grace_s)
        self._lines = self._from_the_start()
        self._started_s = time.perf_counter()
        self.counts = Counts(failures=failures, stop=self._signals.stopping, is_followed=mode.is_followed)
        self._account_lines = AccountLines()
        # No account is held by a bulk push, whose statuses fail at once.
        held = [self._account_lines.on_event] if mode.is_followed else []
        self.hooks = [self.counts.on_event, *held, *mode.hooks]

    async def check(self) -> PushReport:
        """Read every line and send nothing."""
        with self._signals:
            await self._check()
        return self._report(sent_anything=False, is_dry_run=True)

    async def push(self, client: PrintOSClient) -> PushReport:
        """Read and send, and close the client."""
        if self._mode.is_followed:
            self._signals.on_hangup = refresher(client)
        with self._signals, self._account_lines:
            async with client:
                if self._strict:
                    await self._source.spool(stop=self._signals.stopping)
                    self._lines = self._from_the_start()
                    await self._check()
                    if self._lines.bad_lines or self._signals.stopping.is_set():
                        return self._report(sent_anything=False)
                    self._source.rewind()
                    self._lines = self._from_the_start()
                await self._send(client)
        return self._report(sent_anything=True)

    def _from_the_start(self) -> StatusLines:
        return StatusLines(
            self._source,
            self._format,
            stop=self._signals.stopping,
            bad_lines_file=self._bad_lines_file,
        )

    def _report(self, *, sent_anything: bool, is_dry_run: bool = False) -> PushReport:
        return PushReport(
            lines=self._lines,
            counts=self.counts,
            signals=self._signals,
            source=self._source,
            mode=self._mode,
            sent_anything=sent_anything,
            is_dry_run=is_dry_run,
            elapsed_s=time.perf_counter() - self._started_s,
        )

    async def _check(self) -> None:
        lines = self._lines

        def sample() -> tuple[float, str]:
            bad = f" · {unreadable(lines.bad_lines)}" if lines.bad_lines else ""
            return lines.bytes_read, f"{count_statuses(lines.statuses)}{bad}"

        async with live_progress("Checking", total=self._source.size_bytes, sample=sample):
            try:
                async for _ in lines:
                    pass
            except OSError as error:
                self._on_file_error(error)

    async def _send(self, client: PrintOSClient) -> None:
        lines, counts, signals, mode = self._lines, self.counts, self._signals, self._mode
        started_s = time.perf_counter()

        def sample() -> tuple[float, str]:
            stopping = " · stopping" if signals.received is not None else ""
            return lines.bytes_read, mode.progress(counts, time.perf_counter() - started_s) + stopping

        # A failure is named once: by the warning of the pusher when following, otherwise by the counts.
        warnings = LibraryWarnings(except_for=REPORTED_EVENTS if mode.is_followed else {"StatusFailed"})
        async with live_progress(
            "Pushing", total=self._source.size_bytes, sample=sample, has_bar=not mode.is_followed
        ):
            try:
                with warnings:
                    await signals.run_until_giving_up(mode.run(client, self._statuses(), counts))
            finally:
                counts.give_up(lines.left_over())

    async def _statuses(self) -> AsyncGenerator[StatusPush, None]:
        try:
            async for push in self._lines:
                self.counts.on_handed_over(push)
                yield push
        except OSError as error:  # a disk that fails; what came before is sent
            self._on_file_error(error)

    def _on_file_error(self, error: OSError) -> None:
        what = "read" if error.filename is None else f"write {error.filename}, nor read on in"
        where = f"{self._source.name} after line {self._lines.last_line}"
        self.counts.end_reading(f"cannot {what} {where}: {error.strerror}")
