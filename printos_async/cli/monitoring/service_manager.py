"""Notifications to systemd, or to another service manager that speaks ``sd_notify``."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class ServiceManager:
    """Sends notifications to the socket that the service manager has named in the environment.

    The protocol is a datagram of ``NAME=value`` lines: sd_notify(3), which promises that it stays so. A library for it
    would be a dependency in place of these few lines. Nothing is sent without such a socket, nor before ``open``.

    Args:
        env: The environment.

    Attributes:
        watchdog_s: Seconds after which the service manager restarts a service that has not notified it; 0 for never.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self.watchdog_s = 0.0
        self._next_watchdog_s = 0.0
        self._socket: socket.socket | None = None
        name = env.get("NOTIFY_SOCKET", "")
        self._has_address = hasattr(socket, "AF_UNIX") and name[:1] in {"/", "@"}
        # "@" stands for the zero byte of Linux' abstract addresses.
        self._address = "\0" + name[1:] if name.startswith("@") else name
        usec, pid = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
        if self._has_address and usec.isdecimal() and pid in {"", str(os.getpid())}:
            self.watchdog_s = int(usec) / 1e6

    def open(self) -> None:
        """Open the socket that notifications are sent with."""
        if self._has_address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            # The event loop must not wait for a service manager that does not read.
            self._socket.setblocking(False)

    def notify(self, *lines: str) -> bool:
        """Send one notification, and return whether it was taken."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:  # it restarts, or does not read; the next notification may get through
            return False
        return True

    def notify_alive(self) -> None:
        """Send a sign of life if half of the watchdog's time has passed since the last one."""
        now_s = time.monotonic()
        if self.watchdog_s and now_s >= self._next_watchdog_s and self.notify("WATCHDOG=1"):
            self._next_watchdog_s = now_s + self.watchdog_s / 2

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
