"""Hooks: functions that receive every event of a client."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from .log import events_log, log_event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from . import Event

_log = logging.getLogger("printos_async")


class Hook(Protocol):
    """Any function of one argument. It receives every event, on the event loop, in the order in which they happen.

    It is called synchronously: hand long work to a task or a queue. An exception that a hook raises is logged once for
    each hook, and has no other effect.
    """

    def __call__(self, event: Event, /) -> object:
        """Receive one event."""


class Hooks:
    """The hooks of one client, and the log.

    True if there is a hook, or the log is at DEBUG: all events must be emitted. If false, only the events that are
    logged above DEBUG have to be created and emitted.
    """

    __slots__ = ("_hooks", "_reported", "_wanted")

    def __init__(self, hooks: Iterable[Hook]) -> None:
        hooks = tuple(hooks)
        self._hooks: tuple[Hook, ...] = (log_event, *hooks)
        self._wanted = bool(hooks)
        self._reported: set[int] = set()

    def __bool__(self) -> bool:
        return self._wanted or events_log.isEnabledFor(logging.DEBUG)

    def emit(self, event: Event) -> None:
        """Log an event and pass it to every hook."""
        for hook in self._hooks:
            try:
                hook(event)
            except Exception as error:  # noqa: BLE001  # a watcher must not stop the work
                if id(hook) not in self._reported:
                    self._reported.add(id(hook))
                    # By name only: a hook's text may hold whatever its author put there.
                    name = type(error).__name__
                    _log.warning(
                        "hook failed, further failures are not logged: %s", name, extra={"error": name}
                    )
