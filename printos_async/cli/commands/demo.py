"""``printos demo``: options and output."""

import asyncio
from typing import Annotated

import typer

from printos_async.cli.options.groups import AsJson
from printos_async.cli.terminal.output import EXIT_FAILED, EXIT_OK, complain, write_json, write_line

from .sandbox import require_sandbox


def demo(
    *,
    devices: Annotated[int, typer.Option(min=1, help="Number of devices.")] = 200,
    rounds: Annotated[
        int, typer.Option(min=1, help="Number of rounds; each device reports three times in a round.")
    ] = 5,
    faults: Annotated[
        bool,
        typer.Option(
            "--faults",
            help="Make the server answer 503 and 429, reset connections, cut answers off, write late, go away, and "
            "refuse the key for a moment.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the random faults; another seed, other faults.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Push the statuses of a fleet to a local sandbox, and check the result there.

    Starts a sandbox that checks signatures, registers the devices, sends several rounds of statuses over real
    HTTP, and checks that every device ended with its newest status and was never written to twice at once.
    With --faults a long-lived pusher sends them.

    Exit codes: 0 the check passed, 1 it failed, 2 usage or configuration.
    """
    require_sandbox()
    from printos_async.cli.demo.faulty import FaultyDemo  # noqa: PLC0415
    from printos_async.cli.demo.run import Demo  # noqa: PLC0415
    from printos_async.sandbox import Faults  # noqa: PLC0415  # needs the extra

    if faults:
        run: Demo = FaultyDemo(devices=devices, rounds=rounds, seed=seed)
    else:
        run = Demo(devices=devices, rounds=rounds, faults=Faults(seed=seed))
    report = asyncio.run(run.run())
    if as_json:
        write_json(report.to_json())
    else:
        for line in report.lines():
            write_line(line)
    for problem in report.problems:
        complain(problem)
    raise typer.Exit(EXIT_FAILED if report.problems else EXIT_OK)
