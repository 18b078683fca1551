"""``printos push``: one run of the command, from the source to the report."""

from __future__ import annotations

import time
from typing import IO, TYPE_CHECKING, Any

from printos_async.cli.input.statuses import StatusLines
from printos_async.cli.options.delivery import DEFAULT_DRAIN_TIMEOUT_S
from printos_async.cli.push.counts import Counts
from printos_async.cli.push.report import PushReport
from printos_async.cli.terminal.log import LibraryWarnings
from printos_async.cli.terminal.output import count_statuses, unreadable
from printos_async.cli.terminal.progress import live_progress
from printos_async.cli.terminal.signals import GRACE_S, StopSignals

from .modes import Follow, Spooling

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from printos_async._client import PrintOSClient
    from printos_async._events import Hook
    from printos_async._models import StatusPush
    from printos_async.cli.input.records import Format
    from printos_async.cli.input.source import Source
    from printos_async.cli.push.files import FailuresFile


class PushJob:
    """Pushes the statuses of a source.

    Args:
        source: The open source.
        file_format: The format of its lines.
        strict: Send nothing if a line is bad.
        failures: Keeps statuses that were not sent.
        bad_lines_file: Keeps bad lines.
        delivery: Arguments of ``PrintOSClient.status_pusher`` for a source that is followed; None to push in bulk.
        drain_timeout_s: Seconds to send what was read once a followed source ends; None for the default.
        spool_url: The outbox that takes the statuses instead of the server; never shown.
    """

    def __init__(
        self,
        *,
        source: Source,
        file_format: Format,
        strict: bool,
        failures: FailuresFile | None,
        bad_lines_file: IO[bytes] | None,
        delivery: Mapping[str, Any] | None = None,
        drain_timeout_s: float | None = None,
        spool_url: str | None = None,
    ) -> None:
        self._source = source
        self._format = file_format
        self._strict = strict
        self._spool_url = spool_url
        self._bad_lines_file = bad_lines_file
        grace_s = DEFAULT_DRAIN_TIMEOUT_S if drain_timeout_s is None else drain_timeout_s
        self._signals = StopSignals(grace_s=GRACE_S if delivery is None else grace_s)
        self._lines = self._from_the_start()
        self._started_s = time.perf_counter()
        self._counts = Counts(failures=failures, stop=self._signals.stopping, names_failures=delivery is None)
        self._follow = (
            None
            if delivery is None
            else Follow(delivery, drain_timeout_s=drain_timeout_s, counts=self._counts)
        )

    @property
    def hooks(self) -> list[Hook]:
        """Hooks for the client."""
        return [self._counts.on_event, *([] if self._follow is None else [self._follow.on_event])]

    async def check(self) -> PushReport:
        """Read every line and send nothing."""
        with self._signals:
            await self._check()
        return self._report(sent_anything=False, is_dry_run=True)

    async def push(self, client: PrintOSClient) -> PushReport:
        """Read and send, and close the client."""
        with self._signals:
            async with client:
                if self._strict:
                    await self._source.spool(stop=self._signals.stopping)
                    self._lines = self._from_the_start()
                    await self._check()
                    if self._lines.bad_lines or self._signals.stopping.is_set() or self._counts.problem:
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
            counts=self._counts,
            signals=self._signals,
            source=self._source,
            is_followed=self._follow is not None,
            unconfirmed=0 if self._follow is None else self._follow.unconfirmed,
            is_spooled=self._spool_url is not None,
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
                self._on_read_error(error)

    async def _send(self, client: PrintOSClient) -> None:
        lines, counts, signals, follow = self._lines, self._counts, self._signals, self._follow
        started_s = time.perf_counter()

        def sample() -> tuple[float, str]:
            stopping = " · stopping" if signals.received is not None else ""
            if follow is not None:
                return 0, follow.sample() + stopping
            done = counts.sent + counts.accepted
            rate = done / max(time.perf_counter() - started_s, 0.001)
            failed = f" · {counts.failed:,} failed" if counts.failed else ""
            word = "sent" if self._spool_url is None else "accepted"
            return lines.bytes_read, f"{done:,} {word}{failed} · {rate:,.0f}/s{stopping}"

        # A failure is named once: by the warning of the pusher when following, otherwise by the counts.
        warnings = LibraryWarnings(except_for="StatusFailed" if follow is None else "CircuitChanged")
        async with live_progress(
            "Pushing", total=self._source.size_bytes, sample=sample, has_bar=follow is None
        ):
            try:
                with warnings:
                    await signals.run_until_giving_up(self._push_all(client))
            finally:
                counts.give_up(lines.left_over())

    async def _push_all(self, client: PrintOSClient) -> None:
        if self._spool_url is not None:
            spooling = Spooling(self._spool_url, self._counts, on_problem=self._on_problem)
            await spooling.run(client, self._statuses())
        elif self._follow is None:
            await client.push_statuses(self._statuses(), on_result=self._counts.on_result)
        else:
            await self._follow.run(client, self._statuses())

    async def _statuses(self) -> AsyncGenerator[StatusPush, None]:
        try:
            async for push in self._lines:
                self._counts.on_handed_over(push)
                yield push
        except OSError as error:  # a disk that fails; what came before is sent
            self._on_read_error(error)

    def _on_problem(self, problem: str) -> None:
        # Reading on would only lose more statuses; the report names the last line that was taken.
        self._counts.problem = self._counts.problem or problem
        self._signals.stopping.set()

    def _on_read_error(self, error: OSError) -> None:
        self._counts.problem = (
            f"cannot read {self._source.name} after line {self._lines.last_line}: {error.strerror}"
        )
