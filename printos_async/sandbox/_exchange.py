"""One request on its way, and the ways in which it can end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from . import _answers

if TYPE_CHECKING:
    from starlette.types import Receive, Send

    from ._answers import Answer, RefusedError
    from ._clock import ServerClock
    from ._records import RecordedRequest
    from ._server import Connection

MAX_BODY_BYTES = 1024 * 1024


@define(eq=False)
class Exchange:
    """A request and its connection; the connection is None under another server than the sandbox's."""

    record: RecordedRequest
    connection: Connection | None
    _receive: Receive
    _send: Send
    _clock: ServerClock

    def client_has_left(self) -> bool:
        """Return whether nobody waits for the answer any more; never true without a connection."""
        return self.connection is not None and self.connection.is_closing()

    async def read(self) -> bytes | None:
        """Read the body, of a long one enough to see that; None if the client left before its end."""
        chunks = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return None
            if len(chunks) <= MAX_BODY_BYTES:
                chunks += message.get("body", b"")
            if not message.get("more_body", False):
                return bytes(chunks)

    async def respond(self, answer: Answer) -> None:
        """Answer."""
        if not self.client_has_left():
            self.record.status = answer.status
        headers = [*self._clock.date(), *answer.headers, (b"content-length", b"%d" % len(answer.body))]
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.body})

    async def refuse(self, refused: RefusedError) -> None:
        """Answer with an error."""
        await self.respond(self.error(refused))

    def error(self, refused: RefusedError) -> Answer:
        """Return the answer of a refused request."""
        return _answers.error(refused, request_id=self.record.sequence)

    async def reset(self) -> None:
        """Reset the connection instead of an answer.

        Raises:
            ConnectionResetError: There is no connection to reset.
        """
        if self.connection is None:
            raise ConnectionResetError("the sandbox resets this connection")
        self.connection.reset()
        await self.hang()

    async def cut_off(self, answer: Answer) -> None:
        """Announce more bytes than come, and close.

        Raises:
            ConnectionResetError: There is no connection to close.
        """
        if self.connection is None:
            raise ConnectionResetError("the sandbox cuts this answer off")
        self.connection.write_and_close(_answers.cut_off(answer, self._clock.date()))
        await self.hang()

    async def hang(self) -> None:
        """Return once the connection is gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
