"""Output of the command: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
_EXIT_SIGNAL = 128
_AFTER_UNDERSCORE = re.compile("_(.)")


class CommandError(Exception):
    """An error of the command line itself, in one line that says what to do next.

    Attributes:
        problem: What is wrong.
        remedy: What to do, where that is not part of ``problem``.
        exit_code: The exit code of the command.
    """

    def __init__(self, problem: str, *, remedy: str = "", exit_code: int = EXIT_USAGE) -> None:
        super().__init__(f"{problem}; {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy
        self.exit_code = exit_code


def exit_code_of_signal(number: int) -> int:
    """Return the exit code that shells use for a process ended by this signal."""
    return _EXIT_SIGNAL + number


def printable(text: object) -> str:
    """Return a text with control characters escaped, for servers and files may hold any."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in str(text)
    )


def complain(message: object) -> None:
    """Write one line to standard error, if it can still be written to."""
    # A worker must not end because what collects its messages has gone, or the disk of the log is full.
    with suppress(OSError):
        print(f"printos: {printable(message)}", file=sys.stderr, flush=True)  # noqa: T201


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun, such as "1 line" and "2 lines".

    Args:
        count: How many.
        noun: The noun for one of them.
        plural: The noun for any other number; by default with an ``s``.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def count_statuses(count: int) -> str:
    """Return a number of statuses, such as "1 status" and "2 statuses"."""
    return counted(count, "status", "statuses")


def count_failed(statuses: int) -> str:
    """Return how many statuses failed, such as "0 failed" and "2 statuses failed"."""
    return f"{count_statuses(statuses) if statuses else 0} failed"


def unreadable(lines: int) -> str:
    """Return how many lines could not be read."""
    return f"{counted(lines, 'line')} could not be read"


def write_line(line: object = "") -> None:
    """Write a line for people to standard output."""
    print(line, flush=True)  # noqa: T201  # what reads a pipe of a command that runs on gets it at once


def write_json(value: dict[str, Any]) -> None:
    """Write one JSON object to standard output."""
    print(json.dumps(value, allow_nan=False), flush=True)  # noqa: T201


def write_count(done: str, count: int, *, as_json: bool) -> None:
    """Write how many things were ``done``, such as "3 purged", or ``{"purged": 3}``."""
    if as_json:
        write_json({done: count})
    else:
        write_line(f"{count:,} {done}")


def members(value: attrs.AttrsInstance) -> dict[str, Any]:
    """Return the fields of a value as members of a JSON object: ``device_id`` as ``deviceId``."""
    fields = attrs.asdict(value, recurse=False)
    return {_AFTER_UNDERSCORE.sub(lambda found: found[1].upper(), name): fields[name] for name in fields}


def write_rows(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows to standard output: a table on a terminal, else tab-separated lines."""
    texts = [[printable("" if cell is None else cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(row) + "\n" for row in [list(columns), *texts])
        return
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in texts:
        table.add_row(*row)
    Console(markup=False, highlight=False, emoji=False).print(table)
