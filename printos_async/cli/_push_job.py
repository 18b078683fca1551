"""``printos push``: the work, and the account of it."""

from __future__ import annotations

import asyncio
import time
from typing import IO, TYPE_CHECKING, Any

from attrs import frozen

from ._output import EXIT_FAILED, EXIT_OK, complain, exit_code_of_signal, say, say_json
from ._progress import live_progress
from ._signals import StopSignals
from ._statuses import StatusLines
from ._tally import Tally

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from printos_async._client import PrintOSClient
    from printos_async._models import StatusPush

    from ._failures import FailuresFile
    from ._records import Format
    from ._source import Source


@frozen(kw_only=True)
class Account:
    """What one ``printos push`` did."""

    lines: StatusLines
    tally: Tally
    signals: StopSignals
    source: Source
    sent_anything: bool
    is_dry_run: bool
    elapsed_s: float

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        if self.signals.received is not None:
            return exit_code_of_signal(self.signals.received)
        tally = self.tally
        if tally.failed or tally.unsent or tally.problem is not None or self.lines.bad_lines:
            return EXIT_FAILED
        return EXIT_OK

    def to_json(self) -> dict[str, Any]:
        """Give the account for machines."""
        return {
            "statuses": self.lines.statuses,
            "badLines": self.lines.bad_lines,
            "lastLine": self.lines.last_line,
            "dryRun": self.is_dry_run,
            "stoppedBy": None if self.signals.received is None else self.signals.received.name,
            "problem": self.tally.problem,
            "elapsedS": round(self.elapsed_s, 6),
            "exitCode": self.exit_code,
            **self.tally.to_json(),
        }


class PushJob:
    """Pushes the statuses of a source.

    Args:
        source: The open file.
        file_format: How its lines are written.
        strict: Send nothing if a line is bad.
        failures: Where statuses that were not sent are kept.
        bad_lines_file: Where bad lines are kept.
    """

    def __init__(
        self,
        *,
        source: Source,
        file_format: Format,
        strict: bool,
        failures: FailuresFile | None,
        bad_lines_file: IO[bytes] | None,
    ) -> None:
        self._source = source
        self._format = file_format
        self._strict = strict
        self._bad_lines_file = bad_lines_file
        self._signals = StopSignals()
        self._lines = self._from_the_start()
        self._started_s = time.perf_counter()
        self.tally = Tally(failures=failures, stop=self._signals.stopping)

    async def check(self) -> Account:
        """Read every line and send nothing."""
        with self._signals:
            await self._check()
        return self._account(sent_anything=False, is_dry_run=True)

    async def push(self, client: PrintOSClient) -> Account:
        """Read and send, and close the client."""
        with self._signals:
            async with client:
                if self._strict:
                    await self._source.spool(stop=self._signals.stopping)
                    self._lines = self._from_the_start()
                    await self._check()
                    if self._lines.bad_lines or self._signals.stopping.is_set() or self.tally.problem:
                        return self._account(sent_anything=False)
                    self._source.rewind()
                    self._lines = self._from_the_start()
                await self._send(client)
        return self._account(sent_anything=True)

    def _from_the_start(self) -> StatusLines:
        return StatusLines(
            self._source,
            self._format,
            stop=self._signals.stopping,
            bad_lines_file=self._bad_lines_file,
        )

    def _account(self, *, sent_anything: bool, is_dry_run: bool = False) -> Account:
        return Account(
            lines=self._lines,
            tally=self.tally,
            signals=self._signals,
            source=self._source,
            sent_anything=sent_anything,
            is_dry_run=is_dry_run,
            elapsed_s=time.perf_counter() - self._started_s,
        )

    async def _check(self) -> None:
        lines = self._lines

        def sample() -> tuple[float, str]:
            return lines.bytes_read, f"{lines.statuses:,} statuses · {lines.bad_lines:,} bad lines"

        async with live_progress("Checking", total=self._source.size_bytes, sample=sample):
            try:
                async for _ in lines:
                    pass
            except OSError as error:
                self._on_read_error(error)

    async def _send(self, client: PrintOSClient) -> None:
        lines, tally, signals = self._lines, self.tally, self._signals
        started_s = time.perf_counter()

        async def statuses() -> AsyncGenerator[StatusPush, None]:
            try:
                async for push in lines:
                    tally.on_handed_over(push)
                    yield push
            except OSError as error:  # a disk that fails; what came before is sent
                self._on_read_error(error)

        def sample() -> tuple[float, str]:
            rate = tally.sent / max(time.perf_counter() - started_s, 0.001)
            failed = f" · {tally.failed:,} failed" if tally.failed else ""
            stopping = " · stopping" if signals.received is not None else ""
            return lines.bytes_read, f"{tally.sent:,} sent{failed} · {rate:,.0f}/s{stopping}"

        async with live_progress("Pushing", total=self._source.size_bytes, sample=sample):
            pushing = asyncio.create_task(client.push_statuses(statuses(), on_result=tally.on_result))
            giving_up = asyncio.create_task(signals.giving_up.wait())
            await asyncio.wait({pushing, giving_up}, return_when=asyncio.FIRST_COMPLETED)
            giving_up.cancel()
            pushing.cancel()  # has no effect on one that is done
            await asyncio.wait({pushing})
        tally.give_up(lines.left_over())
        if not pushing.cancelled():
            pushing.result()  # raises what went wrong

    def _on_read_error(self, error: OSError) -> None:
        self.tally.problem = (
            f"cannot read {self._source.name} after line {self._lines.last_line}: {error.strerror}"
        )


def report(account: Account, *, as_json: bool) -> None:
    """Say what was done."""
    tally, lines, source = account.tally, account.lines, account.source
    tally.complain_of_failures()
    if tally.problem is not None:
        complain(tally.problem)
    received = account.signals.received
    if received is not None:
        where = f"after line {lines.last_line} of {source.name}"
        complain(f"stopped by {received.name} {where}; no line after it was sent")
    if not account.sent_anything and lines.bad_lines and not account.is_dry_run:
        complain(f"nothing was sent: correct {lines.bad_lines} bad lines, or leave --strict out")
    if as_json:
        say_json(account.to_json())
        return
    if not account.sent_anything:
        say(f"{lines.statuses:,} statuses, {lines.bad_lines:,} bad lines; nothing sent")
        return
    rate = tally.sent / account.elapsed_s if account.elapsed_s else 0.0
    counts = [
        f"{tally.sent:,} sent",
        f"{tally.superseded:,} replaced by newer ones",
        f"{tally.failed:,} failed",
    ]
    if tally.unsent:
        counts.append(f"{tally.unsent:,} not sent")
    if lines.bad_lines:
        counts.append(f"{lines.bad_lines:,} bad lines")
    say(f"{', '.join(counts)} in {account.elapsed_s:.2f} s ({rate:,.0f}/s, {tally.retries:,} retries)")
