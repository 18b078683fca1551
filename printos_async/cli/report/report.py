"""What one ``printos push`` did, for people and for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from printos_async.cli.terminal.output import (
    EXIT_FAILED,
    EXIT_OK,
    complain,
    exit_code_of_signal,
    say,
    say_json,
)

if TYPE_CHECKING:
    from printos_async.cli.commands.follow import Follow
    from printos_async.cli.input.source import Source
    from printos_async.cli.input.statuses import StatusLines
    from printos_async.cli.terminal.signals import StopSignals

    from .counts import Tally


@frozen(kw_only=True)
class Account:
    """What one ``printos push`` did."""

    lines: StatusLines
    tally: Tally
    signals: StopSignals
    source: Source
    follow: Follow | None
    is_spooled: bool
    sent_anything: bool
    is_dry_run: bool
    elapsed_s: float

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        if self.signals.received is not None:
            return exit_code_of_signal(self.signals.received)
        tally = self.tally
        wrong = tally.failed + tally.unsent + self.lines.bad_lines + self.unconfirmed
        return EXIT_FAILED if wrong or tally.problem is not None else EXIT_OK

    @property
    def unconfirmed(self) -> int:
        """Devices that may not have what was acknowledged; known of a followed file only."""
        return 0 if self.follow is None else self.follow.unconfirmed

    def to_json(self) -> dict[str, Any]:
        """Give the account for machines."""
        spooled = {"accepted": self.tally.accepted} if self.is_spooled else {}
        followed = {} if self.follow is None else {"unconfirmed": self.unconfirmed}
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
            **spooled,
            **followed,
        }


def report(account: Account, *, as_json: bool) -> None:
    """Say what was done."""
    tally, lines, source = account.tally, account.lines, account.source
    if account.follow is None:  # which has said so when it happened
        tally.complain_of_failures()
    if account.unconfirmed:
        complain(
            f"{account.unconfirmed:,} devices: an older status may have landed on the newest; "
            "there was no time to send that once more"
        )
    if tally.problem is not None:
        complain(tally.problem)
    received = account.signals.received
    if received is not None:
        where = f"after line {lines.last_line} of {source.name}"
        done = "accepted" if account.is_spooled else "sent"
        complain(f"stopped by {received.name} {where}; no line after it was {done}")
    if not account.sent_anything and lines.bad_lines and not account.is_dry_run:
        complain(f"nothing was sent: correct {lines.bad_lines} bad lines, or leave --strict out")
    if as_json:
        say_json(account.to_json())
        return
    if not account.sent_anything:
        say(f"{lines.statuses:,} statuses, {lines.bad_lines:,} bad lines; nothing sent")
        return
    say(_summary(account))


def _summary(account: Account) -> str:
    tally, lines = account.tally, account.lines
    rate = (tally.sent + tally.accepted) / account.elapsed_s if account.elapsed_s else 0.0
    if account.is_spooled:
        counts = [f"{tally.accepted:,} accepted into the outbox"]
    else:
        counts = [f"{tally.sent:,} sent", f"{tally.superseded:,} replaced by newer ones"]
    if tally.failed or not account.is_spooled:
        counts.append(f"{tally.failed:,} failed")
    if tally.unsent:
        counts.append(f"{tally.unsent:,} not {'accepted' if account.is_spooled else 'sent'}")
    if lines.bad_lines:
        counts.append(f"{lines.bad_lines:,} bad lines")
    retries = "" if account.is_spooled else f", {tally.retries:,} retries"
    return f"{', '.join(counts)} in {account.elapsed_s:.2f} s ({rate:,.0f}/s{retries})"
