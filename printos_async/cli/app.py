"""Application ``printos``: its subcommands and the rendering of their errors."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, TextIO

import typer

from printos_async._errors import APIError, ConfigurationError, PrintOSError

from .commands import check, demo, devices, outbox, push, sandbox, worker
from .terminal.output import EXIT_FAILED, EXIT_OK, EXIT_USAGE, CommandError, complain, exit_code_of_signal

# Typer does not export its copy of click; the base of this public error is the root of all usage errors.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="printos",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.add_typer(devices.app, name="devices")
app.add_typer(outbox.app, name="outbox")
app.command()(check.check)
app.command()(push.push)
app.command()(worker.worker)
app.command()(demo.demo)
app.command()(sandbox.sandbox)


def _show_version(wanted: bool) -> None:  # noqa: FBT001  # Typer calls it so
    if wanted:
        typer.echo(f"printos-async {version('printos-async')}")
        raise typer.Exit


@app.callback()
def _printos(
    *,
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Report the status of print devices to HP PrintOS.

    Set PRINTOS_BASE_URL to the server's URL, and the credentials: PRINTOS_KEY and PRINTOS_SECRET, or
    PRINTOS_LOGIN and PRINTOS_PASSWORD, or PRINTOS_CREDENTIALS for a file with those of each device. Options take
    precedence over the environment. No option takes a secret: put it into the environment or a file, or enter it at
    the prompt.

    Exit codes: 0 done, 1 something failed, 2 usage or configuration.
    """


def run(args: Sequence[str] | None) -> int:
    """Run the command and return its exit code; an error is one line on standard error."""
    # Closed by whoever started the process: what it would show is dropped.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        # A device's name must not end the command because the terminal's encoding lacks a letter.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(args)
        sys.stdout.flush()
    except OSError as error:
        # Where the reader of standard output has gone, nobody wants to know.
        if not isinstance(error, BrokenPipeError):
            complain(f"cannot write the output: {error.strerror or error}")
        _drop(sys.stdout)
        code = EXIT_FAILED
    try:
        sys.stderr.flush()
    except OSError:
        _drop(sys.stderr)
    return code


def _drop(stream: TextIO) -> None:
    """Drop what a stream still buffers: the interpreter would flush it at exit, fail, and change the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w")


def _run(args: Sequence[str] | None) -> int:
    command = typer.main.get_command(app)
    try:
        result = command.main(
            args=None if args is None else list(args), prog_name="printos", standalone_mode=False
        )
    except CommandError as error:
        complain(error)
        return error.exit_code
    except PrintOSError as error:
        remedy = "; printos check says what is wrong" if isinstance(error, APIError) else ""
        complain(f"{error}{remedy}")
        return EXIT_USAGE if isinstance(error, ConfigurationError) else EXIT_FAILED
    except OSError as error:
        if error.filename is None:  # of standard output
            raise
        complain(f"{error.filename}: {error.strerror or error}")
        return EXIT_FAILED
    except _UsageError as error:
        return _explain(error)
    except (KeyboardInterrupt, typer.Abort, asyncio.CancelledError):
        complain("stopped")
        return exit_code_of_signal(signal.SIGINT)
    return result if isinstance(result, int) else EXIT_OK


def _explain(error: Exception) -> int:
    """Report a usage error on standard error and return its exit code."""
    context = getattr(error, "ctx", None)
    where = "printos" if context is None else context.command_path
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if message:  # none where the help itself was the answer to no arguments
        complain(f"{message.rstrip('.')}; see {where} --help")
    return EXIT_USAGE
