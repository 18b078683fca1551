"""Response reader: what llhttp has parsed of one connection's response, and whether its end is certain. No I/O."""

from __future__ import annotations

from httptools import HttpResponseParser

from .base import BODILESS, EXCERPT_BYTES, has_length


class ResponseReader:
    """Collects one response after the other from the callbacks of llhttp. ``begin`` comes before each.

    Attributes:
        parser: Parses what came; None after ``release``.
        status: Status code.
        headers: Names in lower case, and values.
        body: What came of the body, up to ``max_body_bytes`` and perhaps a little more.
        body_bytes: Length of the body so far.
        max_body_bytes: Bytes of the body that are wanted.
        received_bytes: Bytes received since ``begin``, interim responses included; the caller counts them.
        has_head: Status line and header are complete.
        is_complete: The response is complete.
        has_excess: Another response came behind it.
        ends_with_connection: The header says nothing about the length: the end of the connection ends the body.
        keep_alive: The connection can be used again; known when the response is complete.
    """

    def __init__(self) -> None:
        self.parser: HttpResponseParser | None = HttpResponseParser(self)
        self.begin(0)

    def begin(self, max_body_bytes: int) -> None:
        """Forget the last response, and expect the next."""
        self.max_body_bytes = max_body_bytes
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        # Not a list of parts: a peer that sends two bytes at a time would make each cost fifty.
        self.body = bytearray()
        self.body_bytes = 0
        self.received_bytes = 0
        self.has_head = False
        self.is_complete = False
        self.has_excess = False
        self.ends_with_connection = True
        self.keep_alive = False
        self._is_coded = False
        self._is_doubtful = False

    def release(self) -> None:
        """Drop the parser, which holds bound methods of this object: they would be a reference cycle."""
        self.parser = None

    # httptools

    def on_message_begin(self) -> None:
        """Notice a second response behind the first."""
        if self.is_complete:
            self.has_excess = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header; trailers are dropped."""
        if self.has_head:
            return
        key = name.decode("latin-1").lower()
        if key == "content-length":
            self.ends_with_connection = False
        elif key == "transfer-encoding":
            self.ends_with_connection = False
            self._is_coded = True
        self.headers.append((key, value.decode("latin-1").strip()))

    def on_headers_complete(self) -> None:
        """Note that the head is complete, and whether the end of the response is beyond doubt."""
        self.has_head = True
        parser = self.parser
        if parser is None:
            return
        self.status = status = parser.get_status_code()
        if status > 299:
            self.max_body_bytes = min(self.max_body_bytes, EXCERPT_BYTES)
        if self._is_coded or status < 200 or status in BODILESS:
            self._is_doubtful |= not self._is_plainly_framed(parser.get_http_version())

    def on_body(self, data: bytes) -> None:
        """Keep the body up to its limit; the exchange ends when the limit is passed."""
        if not self.is_complete:
            if self.body_bytes <= self.max_body_bytes:
                self.body += data
            self.body_bytes += len(data)

    def on_message_complete(self) -> None:
        """Note the end of a response; an interim one (1xx) is forgotten."""
        if self.is_complete or self.parser is None:
            return
        if self.status < 200:
            received_bytes, is_doubtful = self.received_bytes, self._is_doubtful
            self.begin(self.max_body_bytes)
            self.received_bytes, self._is_doubtful = received_bytes, is_doubtful
        else:
            self.is_complete = True
            # Asked later, llhttp has forgotten.
            self.keep_alive = self.parser.should_keep_alive() and not self._is_doubtful

    def _is_plainly_framed(self, version: str) -> bool:
        # RFC 9112, section 6. llhttp decides the other cases one way, the server perhaps another: what it sends late
        # would pass for the next response.
        if self.status < 200 or self.status in BODILESS:
            return not self._is_coded and not has_length(self.headers)
        codings = [value.lower() for name, value in self.headers if name == "transfer-encoding"]
        return codings == ["chunked"] and version != "1.0"
