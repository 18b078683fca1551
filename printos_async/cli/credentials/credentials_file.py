"""A file with the credentials of each device."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from printos_async._auth import DeviceCredentials, HmacAuth, SessionTokenAuth
from printos_async._auth.base import ReadyAuth, SecretUnavailableError

from .hangup import reread_on_hangup
from .lines import DEFAULT_DEVICE, parse_credentials
from .reread_file import RereadFile

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable
    from pathlib import Path

    import httpx

    from printos_async._auth import Headers
    from printos_async._auth.base import Request
    from printos_async._events import ClockSkewDetected

    from .lines import Credentials

# 250,000 devices, as many as a client keeps accounts, with 256 bytes each.
_MAX_FILE_BYTES = 64_000_000


class CredentialsFile:
    """The credentials of each device, in a file; read again when a device is looked up and the file has changed.

    Args:
        path: The file: JSON lines, or CSV under a header.
        clock: As in ``RereadFile``.

    Raises:
        CommandError: The file cannot be read or used, or other users may read it.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._file = RereadFile(
            path,
            partial(parse_credentials, path),
            content_name="the credentials",
            must_be_private=True,
            max_bytes=_MAX_FILE_BYTES,
            clock=clock,
        )
        # Made when they are needed first, and kept as long as a line has these credentials: a session token is theirs.
        self._auths: dict[Credentials, ReadyAuth] = {}
        self._reading: asyncio.Task[None] | None = None
        self._default: _DefaultLine | None = None
        reread_on_hangup.add(self)

    @property
    def has_default(self) -> bool:
        """Whether there are credentials for what concerns no single device."""
        return DEFAULT_DEVICE in self._file.content

    @property
    def device_ids(self) -> tuple[str, ...]:
        """The devices with a line, in the file's order, the default among them."""
        return tuple(self._file.content)

    def device_credentials(self) -> DeviceCredentials:
        """Return the authentication for a client."""
        return DeviceCredentials(self.find, default=self._default_line())

    async def find(self, device_id: str) -> httpx.Auth | None:
        """Return the credentials of a device; the default's where it has none of its own, if there is one."""
        self.read_again()
        if self._reading is not None:
            await asyncio.shield(self._reading)
        if device_id != DEFAULT_DEVICE and (auth := self.auth_of(device_id)) is not None:
            return auth
        return self._default_line()

    def read_again(self) -> None:
        """Begin to read the file if it has changed; the next ``find`` waits for it."""
        if self._reading is None and self._file.has_changed():
            self._reading = asyncio.create_task(self._read_again())

    def auth_of(self, device_id: str) -> ReadyAuth | None:
        """Return the credentials on the line of a device; None if there is no such line."""
        credentials = self._file.content.get(device_id)
        if credentials is None:
            return None
        auth = self._auths.get(credentials)
        if auth is None:
            make = HmacAuth if credentials.is_key else SessionTokenAuth
            auth = self._auths[credentials] = make(credentials.name, credentials.secret)
        return auth

    def _default_line(self) -> _DefaultLine | None:
        auth = self.auth_of(DEFAULT_DEVICE)
        if auth is not None and self._default is None:
            self._default = _DefaultLine(self, auth)
        return None if auth is None else self._default

    async def _read_again(self) -> None:
        try:
            # In a thread, for it takes a second for 100,000 devices.
            current = await asyncio.to_thread(self._read_in_thread)
            self._auths = {made: auth for made, auth in self._auths.items() if made in current}
        finally:
            self._reading = None

    def _read_in_thread(self) -> set[Credentials]:
        self._file.read_again()
        return set(self._file.content.values())


class _DefaultLine(ReadyAuth):
    """The credentials on the default's line, whatever they are at the moment, for a client keeps its default."""

    def __init__(self, file: CredentialsFile, auth: ReadyAuth) -> None:
        self._file = file
        self._last = auth
        # As on the line when the command started: an outbox stays open while a key is rotated.
        self._account = auth.account

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._last!r})"

    @property
    def account(self) -> str:
        """The key or the login."""
        return self._account

    @property
    def label(self) -> str:
        """The first characters of the key or the login."""
        return self._last.label

    def headers(self, method: str, path: str) -> Headers | None:
        """Return the headers for one attempt."""
        return self._current().headers(method, path)

    def is_outdated(self, method: str, path: str, headers: Headers) -> bool:
        """Return whether a request with these headers would get others by now."""
        return self._current().is_outdated(method, path, headers)

    def refused(self, headers: Headers) -> bool:
        """Return whether the flow can get others."""
        return self._last.refused(headers)

    def learn_clock(self, server_s: float) -> ClockSkewDetected | None:
        """Compare the clock with the server's."""
        return self._last.learn_clock(server_s)

    def refresh(self) -> None:
        """Let the next request log in if the last login was refused."""
        self._last.refresh()

    def secrets(self) -> Iterable[str]:
        """Return what must not be repeated in any message."""
        return self._last.secrets()

    def async_auth_flow(self, request: Request) -> AsyncGenerator[Request, Any]:
        """Authenticate a request."""
        current: Any = self._current()  # its flow takes requests of httpx and httpx2
        flow: AsyncGenerator[Request, Any] = current.async_auth_flow(request)
        return flow

    def _current(self) -> ReadyAuth:
        auth = self._file.auth_of(DEFAULT_DEVICE)
        if auth is None:
            raise SecretUnavailableError(f"the credentials file has no line for {DEFAULT_DEVICE} any more")
        self._last = auth
        return auth
