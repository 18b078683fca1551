"""Report of one ``printos push``, for people and as JSON."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from attrs import frozen

from printos_async._errors import AuthenticationError, ProxyError, RequestTimeoutError, TransportError
from printos_async.cli.input.lines import FORMATS
from printos_async.cli.terminal.outages import complain_of_held
from printos_async.cli.terminal.output import (
    EXIT_FAILED,
    EXIT_OK,
    complain,
    count_failed,
    count_statuses,
    counted,
    exit_code_of_signal,
    members,
    unreadable,
    write_json,
    write_line,
)

from .counts import MAX_FAILURES_SHOWN

if TYPE_CHECKING:
    from pathlib import Path

    from .job import PushJob

# Failures of the connection or the credentials, by name. printos check finds their cause.
_CHECKED = {
    error.__name__ for error in (AuthenticationError, ProxyError, RequestTimeoutError, TransportError)
}


@frozen
class PushReport:
    """Report of one ``printos push``."""

    job: PushJob
    is_dry_run: bool
    elapsed_s: float

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        job, counts = self.job, self.job.counts
        if job.signals.received is not None:
            return exit_code_of_signal(job.signals.received)
        wrong = counts.failed + counts.unsent + job.lines.bad_lines + job.mode.unconfirmed
        return EXIT_FAILED if wrong or counts.problem is not None else EXIT_OK

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        lines, counts, mode = self.job.lines, self.job.counts, self.job.mode
        report = {
            "statuses": lines.values,
            "badLines": lines.bad_lines,
            "lastLine": lines.last_line,
            "dryRun": self.is_dry_run,
            "stoppedBy": self.job.signals.stopped_by,
            "problem": counts.problem,
            "elapsedS": round(self.elapsed_s, 6),
            "exitCode": self.exit_code,
            "heldAccounts": mode.held_accounts,
            "sent": 0 if mode.is_spooled else counts.done,
            "superseded": counts.superseded,
            "failed": counts.failed,
            "unsent": counts.unsent,
            "retries": counts.retries,
            "reasserted": counts.reasserted,
            "errors": dict(counts.errors),
            "failures": [members(failure) for failure in counts.shown],
        }
        if mode.is_spooled:
            report["accepted"] = counts.done
        if mode.has_pusher:
            report["unconfirmed"] = mode.unconfirmed
        return report

    def write(self, *, as_json: bool) -> None:
        """Write the report to standard output, and problems to standard error."""
        job, lines, mode = self.job, self.job.lines, self.job.mode
        self._complain_of_bad_lines()
        self._complain_of_failures()
        if mode.unconfirmed:
            complain(
                f"{counted(mode.unconfirmed, 'device')}: an older status may have landed on the newest; "
                "there was no time to send it again"
            )
        if mode.held_accounts:
            complain_of_held(mode.held_accounts, "push again what was not sent")
        if job.counts.problem is not None:
            complain(job.counts.problem)
        stopped_by = job.signals.stopped_by
        if stopped_by is not None or job.counts.problem is not None:
            ended = "reading ended" if stopped_by is None else f"stopped by {stopped_by}"
            where = f"after line {lines.last_line} of {job.source.name}"
            complain(f"{ended} {where}; no line after it was {mode.done}")
        if as_json:
            write_json(self.to_json())
        elif job.sent_anything:
            write_line(self._summary())
        else:
            bad = f", {unreadable(lines.bad_lines)}" if lines.bad_lines else ""
            write_line(f"{count_statuses(lines.values)}{bad}; nothing sent")

    def _complain_of_bad_lines(self) -> None:
        """Report the number of bad lines on standard error, and what to do next."""
        job, file = self.job, self.job.bad_lines_file
        if not job.lines.bad_lines:
            return
        bad = unreadable(job.lines.bad_lines)
        if not (job.sent_anything or self.is_dry_run):
            complain(f"nothing was sent: {bad}; correct the file, or leave --strict out")
        elif job.counts.problem is None:
            remedy = f"correct {file.name}, and push it" if file else "add --bad-lines FILE to keep them"
            complain(f"{bad}; {remedy}")

    def _complain_of_failures(self) -> None:
        """Report on standard error how many statuses failed or were not sent, and what to do next."""
        counts = self.job.counts
        parts = []
        if counts.failed:
            kinds = ", ".join(f"{count:,} {name}" for name, count in counts.errors.most_common())
            parts.append(f"{count_failed(counts.failed)} ({kinds})")
        if not self.job.mode.has_pusher and counts.failed > MAX_FAILURES_SHOWN:
            parts.append(f"the first {MAX_FAILURES_SHOWN} are named above")
        if counts.unsent:
            parts.append(f"{count_statuses(counts.unsent)} not {self.job.mode.done}")
        if not parts:
            return
        text = ", ".join(parts)
        if _CHECKED & counts.errors.keys():
            text += "; printos check says what is wrong"
        if counts.failures is None:
            text += "; add --failures FILE to save them for another push"
        elif counts.problem is None and counts.failures.is_regular:
            text += f"; {self._next_command(counts.failures.path)} what it keeps"
        complain(text)

    def _next_command(self, failures: Path) -> str:
        """Return the command that pushes the failures file, and what it does with its lines."""
        command = f"printos push {shlex.quote(str(failures))}"
        if FORMATS.get(failures.suffix.lower()) != "jsonl":
            command += " --format jsonl"
        return f"{command} --spool spools" if self.job.mode.is_spooled else f"{command} sends again"

    def _summary(self) -> str:
        counts, bad_lines, mode = self.job.counts, self.job.lines.bad_lines, self.job.mode
        rate = counts.done / self.elapsed_s if self.elapsed_s else 0.0
        if mode.is_spooled:
            parts, retries = [f"{counts.done:,} accepted into the outbox"], ""
        else:
            parts = [f"{counts.done:,} sent", f"{counts.superseded:,} replaced by newer ones"]
            parts.append(count_failed(counts.failed))
            retries = f", {counted(counts.retries, 'retry', 'retries')}"
        if counts.unsent:
            parts.append(f"{counts.unsent:,} not {mode.done}")
        if bad_lines:
            parts.append(unreadable(bad_lines))
        kept = ""
        if counts.failures is not None and counts.failed + counts.unsent:
            kept = f" (failures: {counts.failures.path})"
        return f"{', '.join(parts)}{kept} in {self.elapsed_s:.2f} s ({rate:,.0f}/s{retries})"
