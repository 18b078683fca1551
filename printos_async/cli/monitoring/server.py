"""HTTP server of health and metrics.

It runs in threads of its own and not on the event loop: ``/livez`` has to answer when the loop is blocked, and a
scrape must not take time of the loop. The threads read only samples that the loop has taken.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from printos_async.cli.options.listen import ListenAddress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .metrics import Metrics

_MAX_REQUESTS = 16
# Of a whole connection: whoever sends a byte every few seconds must not keep a thread.
_TIMEOUT_S = 5.0
# Time that stopping takes at most.
_POLL_S = 0.1


def find_page(metrics: Metrics, path: str, accept: str) -> tuple[int, str, bytes]:
    """Return the status code, the content type and the body of a page."""
    heartbeat = metrics.heartbeat
    if path == "/livez":
        # An outage is not a reason: a restart would not end it.
        return _report("live", heartbeat.stalled(), accept)
    if path == "/readyz":
        return _report("ready", {**heartbeat.latest.reasons, **heartbeat.stalled()}, accept)
    if path == "/metrics":
        return 200, *metrics.render(accept)
    return 404, "text/plain; charset=utf-8", b"/livez, /readyz and /metrics are here\n"


class MonitoringServer(ThreadingHTTPServer):
    """Server on one address; answers from its creation on.

    Raises:
        OSError: The address cannot be listened on.
        UnicodeError: Its host is no name.
    """

    daemon_threads = True
    # On Windows it would let two processes listen on one port, and so would the other option everywhere.
    allow_reuse_address = os.name != "nt"
    allow_reuse_port = False
    # A connection beyond the five that are usual is made only when its client has asked again, a second later.
    request_queue_size = 64

    def __init__(self, address: ListenAddress, metrics: Metrics, *, timeout_s: float = _TIMEOUT_S) -> None:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        self.address_family = found[0][0]
        self.metrics = metrics
        self._timeout_s = timeout_s
        self._free = threading.BoundedSemaphore(_MAX_REQUESTS)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_POLL_S,), name="printos-monitoring", daemon=True
        )
        super().__init__((address.host, address.port), _Handler)
        self._thread.start()

    @property
    def address(self) -> ListenAddress:
        """The address that it listens on."""
        return ListenAddress(*self.socket.getsockname()[:2])

    def server_bind(self) -> None:
        """Bind without the look-up of the host's full name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)

    def stop(self) -> None:
        """Answer no more."""
        self.shutdown()
        self._thread.join()
        self.server_close()

    def verify_request(self, request: object, client_address: object) -> bool:  # noqa: ARG002  # overridden
        """Return whether there is a thread for one more request."""
        return self._free.acquire(blocking=False)

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Start the thread that answers one request."""
        try:
            super().process_request(request, client_address)
        except BaseException:  # such as: can't start new thread
            self._free.release()
            raise

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Answer one request, in a thread of its own."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def finish_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Answer one request, and end its connection when its time is over."""
        deadline = threading.Timer(self._timeout_s, _end, [request])
        deadline.start()
        try:
            super().finish_request(request, client_address)
        finally:
            deadline.cancel()
            deadline.join()  # before the socket is closed and its number may be another's

    def handle_error(self, request: object, client_address: object) -> None:
        """Write nothing: the client has disconnected, and asks again."""


class _Handler(BaseHTTPRequestHandler):
    server: MonitoringServer
    server_version = "printos"
    sys_version = ""
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        path, accept = self.path.partition("?")[0], self.headers.get("Accept", "")
        status, content_type, body = find_page(self.server.metrics, path, accept)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Write nothing: a probe asks every few seconds."""


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # its thread reads the end


def _report(state: str, reasons: Mapping[str, str], accept: str) -> tuple[int, str, bytes]:
    status = 503 if reasons else 200
    if accept.startswith("text/plain"):
        lines = [f"{code}: {text}" for code, text in reasons.items()] or [state]
        return status, "text/plain; charset=utf-8", "".join(f"{line}\n" for line in lines).encode()
    body = json.dumps({state: not reasons, "reasons": dict(reasons)})
    return status, "application/json", f"{body}\n".encode()
