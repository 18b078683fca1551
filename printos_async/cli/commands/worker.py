"""``printos worker``: its options, and what it shows."""

import asyncio
import time
from typing import Annotated, Any

import typer

from printos_async._checks import require_number
from printos_async.cli._crew import Crew
from printos_async.cli.options import connection
from printos_async.cli.options import pusher as pusher_options
from printos_async.cli.options.outbox import OutboxUrl, opened_outbox, outbox_url
from printos_async.cli.options.worker import WorkerSettings
from printos_async.cli.terminal.output import (
    EXIT_FAILED,
    EXIT_OK,
    complain,
    exit_code_of_signal,
    say,
    say_json,
)
from printos_async.cli.terminal.progress import live_progress, state_lines
from printos_async.cli.terminal.pusher_line import PusherLine
from printos_async.cli.terminal.signals import StopSignals

from .work import Work

# Less than the 30 s that Kubernetes waits before it kills, and the 90 s of systemd; Docker has to be told.
DEFAULT_DRAIN_TIMEOUT_S = 25.0
# For the processes to say how it went and end, once their time for draining is over.
_MARGIN_S = 2.0
_LEASE_S = 30.0
_STATE_EVERY_S = 60.0


def worker(
    *,
    outbox: OutboxUrl = None,
    processes: Annotated[
        int,
        typer.Option(min=1, max=64, help="Work in several processes, to use several processor cores."),
    ] = 1,
    drain_timeout_s: Annotated[
        float,
        typer.Option(
            "--drain-timeout", min=0.0, help="Seconds to finish what is under way when told to stop."
        ),
    ] = DEFAULT_DRAIN_TIMEOUT_S,
    lease_s: Annotated[
        float,
        typer.Option(
            "--lease", min=1.0, help="Seconds after which others take over from a worker that has died."
        ),
    ] = _LEASE_S,
    state_every_s: Annotated[
        float,
        typer.Option(
            "--state-every",
            min=0.0,
            help="Seconds between lines of state where standard error is no terminal; 0 for none.",
        ),
    ] = _STATE_EVERY_S,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Write one JSON object at the end to standard output, and nothing else."),
    ] = False,
    consistency: pusher_options.Consistency = None,
    ambiguity_s: pusher_options.AmbiguityS = None,
    min_interval_s: pusher_options.MinIntervalS = None,
    skip_unchanged: pusher_options.SkipUnchanged = False,
    deadline_s: pusher_options.DeadlineS = None,
    max_pending_devices: pusher_options.MaxPendingDevices = None,
    base_url: connection.BaseUrl = None,
    key: connection.Key = None,
    secret_file: connection.SecretFile = None,
    login: connection.Login = None,
    password_file: connection.PasswordFile = None,
    timeout_s: connection.TimeoutS = connection.DEFAULT_TIMEOUT_S,
    max_in_flight: connection.MaxInFlight = connection.DEFAULT_MAX_IN_FLIGHT,
    max_attempts: connection.MaxAttempts = connection.DEFAULT_MAX_ATTEMPTS,
    insecure_http: connection.InsecureHttp = False,
) -> None:
    """Send what is in an outbox, until told to stop; any number of workers, on any machines, share it.

    SIGTERM or Ctrl-C: nothing more is begun, what is under way is finished for up to `--drain-timeout` seconds,
    and the rest goes back to the outbox; a second signal ends that at once. What a worker had that has died is
    taken over when its lease ends.

    Exit codes: 0 told to stop and everything finished, 1 something was not or the outbox failed, 2 usage or
    configuration, 130 or 143 ended at once by a second Ctrl-C or SIGTERM.
    """
    require_number("--drain-timeout", drain_timeout_s, 0)
    require_number("--lease", lease_s, 1)
    settings = WorkerSettings(
        outbox=outbox_url(outbox),
        client=connection.Connection(
            base_url=base_url,
            key=key,
            secret_file=secret_file,
            login=login,
            password_file=password_file,
            timeout_s=timeout_s,
            max_in_flight=max_in_flight,
            max_attempts=max_attempts,
            insecure_http=insecure_http,
        ).resolve(),
        lease_s=lease_s,
        pusher=pusher_options.pusher_arguments(
            skip_unchanged=skip_unchanged,
            consistency=consistency,
            ambiguity_s=ambiguity_s,
            min_interval_s=min_interval_s,
            deadline_s=deadline_s,
            max_pending_devices=max_pending_devices,
        ),
        drain_timeout_s=drain_timeout_s,
    )
    shift = _Shift(settings, processes, state_every_s)
    exit_code = asyncio.run(shift.run())
    if as_json:
        say_json(shift.to_json(exit_code))
    else:
        shift.report()
    raise typer.Exit(exit_code)


class _Shift:
    """One run of the command."""

    def __init__(self, settings: WorkerSettings, processes: int, state_every_s: float) -> None:
        self._settings = settings
        self._state_every_s = state_every_s
        self._started_s = time.perf_counter()
        parts = settings.parts(processes)
        self._crew = Crew(parts) if len(parts) > 1 else None
        self._work: Work | Crew = self._crew or Work(settings)
        self._signals = StopSignals(grace_s=settings.drain_timeout_s + _MARGIN_S)

    async def run(self) -> int:
        """Work until told to stop; gives the exit code."""
        signals, line = self._signals, PusherLine()

        def describe() -> str:
            state = self._work.state()
            stopping = " · stopping" if signals.received is not None else ""
            return line.describe(state.stats, retries=state.retries) + stopping

        with signals:
            if self._crew is not None:
                await self._check()
            async with (
                live_progress("Working", total=None, sample=lambda: (0, describe()), has_bar=False),
                state_lines(describe, every_s=self._state_every_s),
            ):
                await signals.run_until_giving_up(self._work.run(signals.stopping))
        return self._exit_code()

    def to_json(self, exit_code: int) -> dict[str, Any]:
        """Give the account for machines."""
        state = self._work.state()
        stats = state.stats
        received = self._signals.received
        return {
            "sent": stats.sent,
            "superseded": stats.superseded,
            "failed": stats.failed,
            "unfinished": stats.pending,
            "retries": state.retries,
            "restarts": 0 if self._crew is None else self._crew.restarts,
            "elapsedS": round(time.perf_counter() - self._started_s, 6),
            "stoppedBy": None if received is None else received.name,
            "exitCode": exit_code,
        }

    def report(self) -> None:
        """Say what was done."""
        state = self._work.state()
        stats = state.stats
        say(
            f"{stats.sent:,} sent, {stats.superseded:,} replaced by newer ones, {stats.failed:,} failed in "
            f"{time.perf_counter() - self._started_s:.0f} s ({state.retries:,} retries)"
        )

    async def _check(self) -> None:
        # What is wrong with the settings is said once, and not by each process again and again.
        settings = self._settings
        async with settings.client.make_client() as client:
            # Not opened: it would claim what it then has to give back.
            await settings.make_pusher(client).aclose()
            async with opened_outbox(settings.outbox, client.account):
                pass

    def _exit_code(self) -> int:
        signals, unfinished = self._signals, self._work.state().stats.pending
        if signals.received is not None and signals.is_repeated:
            return exit_code_of_signal(signals.received)
        if unfinished:
            complain(f"{unfinished:,} statuses were not finished in time; they wait in the outbox")
        return EXIT_FAILED if unfinished or (self._crew is not None and self._crew.lost) else EXIT_OK
