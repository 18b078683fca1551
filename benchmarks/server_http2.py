"""The target for HTTP/2: hypercorn, behind TLS, answers every PUT with 200 and an empty body.

It is started and stopped like ``benchmarks.server``, and counts its answers, too. Its HTTP/2 is written in Python, so it
may be slower than the measured client, which the report says beside the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import socket
import sys
from typing import TYPE_CHECKING

from hypercorn.asyncio import serve
from hypercorn.config import Config

from .loops import fastest_loop, loop_factory, pin_to

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

_BACKLOG = 4096


class _Target:
    """An ASGI application that counts its answers."""

    def __init__(self) -> None:
        self.answered = 0

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http":
            return
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            pass
        # A request over anything else would be a wrong measurement.
        expected = scope["method"] == "PUT" and scope["http_version"] == "2"
        await send(
            {
                "type": "http.response.start",
                "status": 200 if expected else 501,
                "headers": [(b"content-length", b"0")],
                "trailers": False,
            }
        )
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self.answered += expected


async def _serve(certificate: str) -> None:
    target = _Target()
    config = Config()
    config.certfile = config.keyfile = certificate
    config.errorlog = config.accesslog = None
    config.keep_alive_max_requests = sys.maxsize
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(_BACKLOG)
        config.bind = [f"fd://{listener.fileno()}"]
        print(listener.getsockname()[1], flush=True)

        async def stop() -> None:
            await asyncio.to_thread(sys.stdin.buffer.read)

        await serve(target, config, shutdown_trigger=stop)
        listener.detach()  # hypercorn has closed the descriptor
    print(target.answered, flush=True)


def main() -> None:
    """Run the server until standard input closes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server_http2", description=__doc__)
    parser.add_argument("--certificate", required=True, metavar="PEM", help="key and chain")
    parser.add_argument("--core", type=int, help="the core to stay on")
    arguments = parser.parse_args()
    pin_to(arguments.core)
    gc.freeze()
    with asyncio.Runner(loop_factory=loop_factory(fastest_loop())) as runner:
        runner.run(_serve(arguments.certificate))


if __name__ == "__main__":
    main()
