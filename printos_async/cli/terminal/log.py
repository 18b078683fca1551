"""Library warnings as lines on standard error."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Self

from .output import complain, counted

if TYPE_CHECKING:
    from collections.abc import Collection

# Events of the host and of accounts, for which commands that run on have lines of their own.
REPORTED_EVENTS = frozenset({"CircuitChanged", "AccountHeld"})
_LINES_AT_ONCE = 10
_SPAN_S = 10.0


class LibraryWarnings(logging.Handler):
    """Writes the library's warnings to standard error: at most ten lines in ten seconds, then their number.

    A context manager; while active it replaces Python's handler of last resort.

    Args:
        except_for: Names of the events that the command itself reports.
    """

    def __init__(self, *, except_for: Collection[str]) -> None:
        super().__init__(logging.WARNING)
        self._except_for = except_for
        self._logger = logging.getLogger("printos_async")
        self._since_s = 0.0
        self._lines = 0

    def __enter__(self) -> Self:
        self._logger.addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._logger.removeHandler(self)
        self._complain_of_suppressed()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one warning, or count it."""
        if getattr(record, "event", None) in self._except_for:
            return
        now_s = time.monotonic()
        if now_s - self._since_s > _SPAN_S:
            self._complain_of_suppressed()
            self._since_s, self._lines = now_s, 0
        self._lines += 1
        if self._lines <= _LINES_AT_ONCE:
            complain(_line(record))

    def _complain_of_suppressed(self) -> None:
        if self._lines > _LINES_AT_ONCE:
            complain(f"and {counted(self._lines - _LINES_AT_ONCE, 'more warning')} like these")


def _line(record: logging.LogRecord) -> str:
    if getattr(record, "event", None) == "StatusFailed":
        fields = vars(record)
        return f"device {fields['device_id']}, {fields['detail']}"
    return record.getMessage()
