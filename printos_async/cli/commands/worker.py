"""``printos worker``: options, and one run of the command."""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import typer
from attrs import define, field

from printos_async._client import PrintOSClient
from printos_async._delivery.pusher import PusherStats, StatusPusher
from printos_async._delivery.settings import LEASE_PER_TIMEOUT
from printos_async._events import Event, RetryScheduled
from printos_async.cli.credentials.hangup import reread_files
from printos_async.cli.monitoring.monitor import Monitor
from printos_async.cli.options.connection import ConcurrentRequests
from printos_async.cli.options.delivery import Delivery
from printos_async.cli.options.groups import AsJson, with_option_groups
from printos_async.cli.options.listen import ListenAddress, ListenTo
from printos_async.cli.options.outbox import OutboxUrl, outbox_url
from printos_async.cli.terminal.log import REPORTED_EVENTS, LibraryWarnings
from printos_async.cli.terminal.outages import OutageLines, complain_of_held
from printos_async.cli.terminal.output import (
    EXIT_FAILED,
    EXIT_OK,
    CommandError,
    complain,
    count_failed,
    count_statuses,
    counted,
    exit_code_of_signal,
    write_json,
    write_line,
)
from printos_async.cli.terminal.progress import PusherLine, live_progress, state_lines
from printos_async.cli.terminal.signals import StopSignals, run_until
from printos_async.outbox import SqlOutbox

# Less than the 30 s after which Kubernetes kills, and the 90 s of systemd; Docker needs --stop-timeout.
DEFAULT_DRAIN_TIMEOUT_S = 25.0
# For giving unfinished statuses back to the outbox after draining.
_MARGIN_S = 2.0
_LEASE_S = 30.0
_STATE_EVERY_S = 60.0


@with_option_groups
def worker(
    *,
    outbox: OutboxUrl = None,
    drain_timeout_s: Annotated[
        float,
        typer.Option("--drain-timeout", min=0.0, help="Seconds to finish what is under way after a signal."),
    ] = DEFAULT_DRAIN_TIMEOUT_S,
    lease_s: Annotated[
        float,
        typer.Option(
            "--lease",
            min=1.0,
            help="Seconds after which other workers take over the devices of a worker that has died or hangs. On SQLite "
            "they take over from a dead process at once.",
        ),
    ] = _LEASE_S,
    state_every_s: Annotated[
        float,
        typer.Option(
            "--state-every",
            min=0.0,
            help="Seconds between state lines if standard error is not a terminal; 0 for none.",
        ),
    ] = _STATE_EVERY_S,
    listen: ListenTo = None,
    as_json: AsJson = False,
    delivery: Delivery,
    connection: ConcurrentRequests,
) -> None:
    """Send the statuses in an outbox until stopped; any number of workers, on any machines, can share it.

    After SIGTERM or Ctrl-C the worker claims nothing more, finishes what is under way for up to `--drain-timeout`
    seconds, and releases the rest; a second signal ends it at once. When a worker dies, the others take over what it
    had claimed: on SQLite within a second, on PostgreSQL when its lease ends.

    Exit codes: 0 stopped with everything finished, 1 something not finished or the outbox failed, 2 usage or
    configuration, 130 or 143 ended at once by a second Ctrl-C or SIGTERM.
    """
    if lease_s < LEASE_PER_TIMEOUT * connection.timeout_s:
        raise CommandError(
            f"--lease must be at least {LEASE_PER_TIMEOUT} times --timeout ({connection.timeout_s:g} s)"
        )
    work = Work(
        outbox=SqlOutbox(outbox_url(outbox), lease_s=lease_s),
        drain_timeout_s=drain_timeout_s,
        delivery=delivery.arguments(),
        state_every_s=state_every_s,
        monitor=Monitor(None if listen is None else ListenAddress.parse(listen)),
    )
    client = connection.make_client(hooks=[work.on_event, *work.monitor.hooks])
    stats = asyncio.run(work.run(client))
    raise typer.Exit(work.report(stats, as_json=as_json))


@define(eq=False, kw_only=True)
class Work:
    """One run of the worker: a pusher that delivers what is in an outbox, until a signal ends it.

    Attributes:
        outbox: The outbox.
        drain_timeout_s: Seconds to finish what is under way after a signal.
        delivery: The other arguments of ``PrintOSClient.status_pusher``.
        state_every_s: Seconds between lines of state; 0 for none.
        monitor: Serves health and metrics; it has hooks for the client.
        signals: Ctrl-C and SIGTERM.
        retries: Retried requests.
    """

    outbox: SqlOutbox
    drain_timeout_s: float
    delivery: Mapping[str, Any]
    state_every_s: float
    monitor: Monitor
    signals: StopSignals = field(init=False)
    retries: int = field(default=0, init=False)
    _started_s: float = field(default=0.0, init=False)
    _outage_lines: OutageLines = field(factory=OutageLines, init=False)

    def __attrs_post_init__(self) -> None:
        self.signals = StopSignals(grace_s=self.drain_timeout_s + _MARGIN_S)

    def on_event(self, event: Event) -> None:
        """Count retries, and report outages; a hook of the client."""
        if isinstance(event, RetryScheduled):
            self.retries += 1
        self._outage_lines.on_event(event)

    async def run(self, client: PrintOSClient) -> PusherStats:
        """Deliver until a signal, finish what is under way, close the client, and return its last state.

        What is not finished within ``drain_timeout_s`` goes back to the outbox; a second signal gives it back at once.

        Raises:
            ConfigurationError: A setting is out of range.
            OutboxError: The outbox cannot be used.
            CommandError: The address for health and metrics cannot be listened on.
        """
        self._started_s = time.perf_counter()  # not before: whoever is asked for the secret takes a while
        signals, line = self.signals, PusherLine()
        signals.on_hangup = self.monitor.announcing(partial(reread_files, client))
        with signals, self._outage_lines:
            async with self.monitor, client:
                pusher = client.status_pusher(outbox=self.outbox, **self.delivery)

                def describe() -> str:
                    return line.describe(pusher.stats(), retries=self.retries) + signals.progress_suffix

                self.monitor.watch(pusher, describe, outbox=self.outbox)
                async with (
                    live_progress("Working", total=None, sample=lambda: (0, describe()), has_bar=False),
                    state_lines(describe, every_s=self.state_every_s),
                ):
                    await run_until(signals.giving_up, self.deliver(pusher))
        return pusher.stats()

    def report(self, stats: PusherStats, *, as_json: bool) -> int:
        """Write the report to standard output and problems to standard error, and return the exit code."""
        received = self.signals.received
        elapsed_s = time.perf_counter() - self._started_s
        if stats.failed:
            complain(
                f"{count_failed(stats.failed)}; printos outbox failed lists what was given up, "
                "printos outbox requeue --all sends it again"
            )
        if stats.pending:
            was, waits = ("was", "it waits") if stats.pending == 1 else ("were", "they wait")
            complain(f"{count_statuses(stats.pending)} {was} not finished in time; {waits} in the outbox")
        if stats.held_accounts:
            complain_of_held(stats.held_accounts, "what waits is sent once a request gets through")
        exit_code = EXIT_FAILED if stats.pending else EXIT_OK
        if received is not None and self.signals.is_repeated:
            exit_code = exit_code_of_signal(received)
        if as_json:
            write_json(
                {
                    "sent": stats.sent,
                    "superseded": stats.superseded,
                    "failed": stats.failed,
                    "unfinished": stats.pending,
                    "heldAccounts": stats.held_accounts,
                    "retries": self.retries,
                    "elapsedS": round(elapsed_s, 6),
                    "stoppedBy": self.signals.stopped_by,
                    "exitCode": exit_code,
                }
            )
        else:
            write_line(
                f"{stats.sent:,} sent, {stats.superseded:,} replaced by newer ones, "
                f"{count_failed(stats.failed)} in {elapsed_s:.0f} s "
                f"({counted(self.retries, 'retry', 'retries')})"
            )
        return exit_code

    async def deliver(self, pusher: StatusPusher) -> None:
        """Deliver with one pusher until a signal comes or the pusher fails, then drain and close it."""
        async with pusher:
            with LibraryWarnings(except_for=REPORTED_EVENTS):
                await run_until(self.signals.stopping, pusher.wait_ended())
                await pusher.drain(self.drain_timeout_s)
