"""A TLS server on OpenSSL's own sockets: asyncio's servers end a refused handshake without the alert."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def refusing_server(context: ssl.SSLContext) -> Iterator[int]:
    """Run a server that makes handshakes and ends the connections; return its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, context), daemon=True)
        thread.start()
        port: int = listener.getsockname()[1]
        yield port
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    with suppress(OSError):  # the listener is closed
        while True:
            accepted, _ = listener.accept()
            accepted.settimeout(10)
            with suppress(OSError):
                _handshake(accepted, context)


def _handshake(accepted: socket.socket, context: ssl.SSLContext) -> None:
    secure = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
    with suppress(ssl.SSLError):
        secure.do_handshake()
    # Read to the end: closing with something unread would be a reset, which can overtake the alert.
    with socket.socket(fileno=secure.detach()) as plain:
        plain.settimeout(10)
        plain.shutdown(socket.SHUT_WR)
        while plain.recv(65_536):
            pass
