"""Report of one ``printos push``, for people and as JSON."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from attrs import frozen

from printos_async.cli.terminal.accounts import complain_of_held
from printos_async.cli.terminal.output import (
    EXIT_FAILED,
    EXIT_OK,
    complain,
    count_failed,
    count_statuses,
    counted,
    exit_code_of_signal,
    unreadable,
    write_json,
    write_line,
)

from .counts import MAX_FAILURES_SHOWN

if TYPE_CHECKING:
    from printos_async.cli.input.source import Source
    from printos_async.cli.input.statuses import StatusLines
    from printos_async.cli.terminal.signals import StopSignals

    from .counts import Counts
    from .modes import Mode


@frozen(kw_only=True)
class PushReport:
    """Report of one ``printos push``."""

    lines: StatusLines
    counts: Counts
    signals: StopSignals
    source: Source
    mode: Mode
    sent_anything: bool
    is_dry_run: bool
    elapsed_s: float

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        if self.signals.received is not None:
            return exit_code_of_signal(self.signals.received)
        counts = self.counts
        wrong = counts.failed + counts.unsent + self.lines.bad_lines + self.mode.unconfirmed
        return EXIT_FAILED if wrong or counts.problem is not None else EXIT_OK

    @property
    def _done(self) -> str:
        return "accepted" if self.mode.is_spooled else "sent"

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        spooled = {"accepted": self.counts.accepted} if self.mode.is_spooled else {}
        followed = {"unconfirmed": self.mode.unconfirmed} if self.mode.is_followed else {}
        return {
            "statuses": self.lines.statuses,
            "badLines": self.lines.bad_lines,
            "lastLine": self.lines.last_line,
            "dryRun": self.is_dry_run,
            "stoppedBy": None if self.signals.received is None else self.signals.received.name,
            "problem": self.counts.problem,
            "elapsedS": round(self.elapsed_s, 6),
            "exitCode": self.exit_code,
            "heldAccounts": self.mode.held_accounts,
            **self.counts.to_json(),
            **spooled,
            **followed,
        }

    def write(self, *, as_json: bool) -> None:
        """Write the report to standard output, and problems to standard error."""
        counts, lines, source = self.counts, self.lines, self.source
        self._complain_of_bad_lines()
        self._complain_of_failures()
        if self.mode.unconfirmed:
            complain(
                f"{counted(self.mode.unconfirmed, 'device')}: an older status may have landed on the newest; "
                "there was no time to send it again"
            )
        if self.mode.held_accounts:
            complain_of_held(self.mode.held_accounts, "push again what was not sent")
        if counts.problem is not None:
            complain(counts.problem)
        received = self.signals.received
        if received is not None:
            where = f"after line {lines.last_line} of {source.name}"
            complain(f"stopped by {received.name} {where}; no line after it was {self._done}")
        if not self.sent_anything and lines.bad_lines and not self.is_dry_run:
            complain(
                f"nothing was sent: {unreadable(lines.bad_lines)}; correct the file, or leave --strict out"
            )
        if as_json:
            write_json(self.to_json())
            return
        if not self.sent_anything:
            bad = f", {unreadable(lines.bad_lines)}" if lines.bad_lines else ""
            write_line(f"{count_statuses(lines.statuses)}{bad}; nothing sent")
            return
        write_line(self._summary())

    def _complain_of_bad_lines(self) -> None:
        """Report the number of bad lines on standard error, and what to do next."""
        is_all_said = self.counts.problem is not None or not (self.sent_anything or self.is_dry_run)
        if is_all_said or not self.lines.bad_lines:
            return
        file = self.lines.bad_lines_file
        remedy = "add --bad-lines FILE to keep them" if file is None else f"correct {file.name}, and push it"
        complain(f"{unreadable(self.lines.bad_lines)}; {remedy}")

    def _complain_of_failures(self) -> None:
        """Report on standard error how many statuses failed or were not sent, and what to do next."""
        counts = self.counts
        parts = []
        if counts.failed:
            kinds = ", ".join(f"{count:,} {name}" for name, count in counts.errors.most_common())
            parts.append(f"{count_failed(counts.failed)} ({kinds})")
        if not counts.is_followed and counts.failed > MAX_FAILURES_SHOWN:
            parts.append(f"the first {MAX_FAILURES_SHOWN} are named above")
        if counts.unsent:
            parts.append(f"{count_statuses(counts.unsent)} not {self._done}")
        if not parts:
            return
        text = ", ".join(parts)
        if counts.failures is None:
            text += "; add --failures FILE to keep what fails in lines that can be pushed again"
        elif counts.problem is None and counts.failures.is_regular:
            text += f"; printos push {shlex.quote(str(counts.failures.path))} sends again what it keeps"
        complain(text)

    def _summary(self) -> str:
        counts, lines = self.counts, self.lines
        rate = (counts.sent + counts.accepted) / self.elapsed_s if self.elapsed_s else 0.0
        if self.mode.is_spooled:
            parts = [f"{counts.accepted:,} accepted into the outbox"]
        else:
            parts = [f"{counts.sent:,} sent", f"{counts.superseded:,} replaced by newer ones"]
        if counts.failed or not self.mode.is_spooled:
            parts.append(count_failed(counts.failed))
        if counts.unsent:
            parts.append(f"{counts.unsent:,} not {self._done}")
        if lines.bad_lines:
            parts.append(unreadable(lines.bad_lines))
        retries = "" if self.mode.is_spooled else f", {counted(counts.retries, 'retry', 'retries')}"
        kept = ""
        if counts.failures is not None and counts.failed + counts.unsent:
            kept = f" (failures: {counts.failures.path})"
        return f"{', '.join(parts)}{kept} in {self.elapsed_s:.2f} s ({rate:,.0f}/s{retries})"
