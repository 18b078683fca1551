"""Base class of the credentials, and checks of secrets."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import httpx

from printos_async import _httpx2

if TYPE_CHECKING:
    from collections.abc import Iterable

# A flow yields requests of the library that it was called with.
Request = TypeVar("Request", httpx.Request, _httpx2.Request)
Response: TypeAlias = httpx.Response | _httpx2.Response

Headers = tuple[tuple[str, str], ...]

# An extension of the client's own requests; true on one that was refused once already and must not be replayed again.
REPLAY_EXTENSION = "printos_async.replay"


class ReadyAuth(httpx.Auth, _httpx2.Auth):  # type: ignore[misc]  # whose flows differ in the classes of their requests
    """An ``Auth`` of httpx and httpx2 that usually knows its headers without a request of its own.

    The client calls ``headers`` for every attempt. It runs the flow of ``httpx.Auth``, which costs more, only if the
    credentials have to be fetched first (a login). Other clients of httpx and httpx2 always run the flow.
    """

    @abstractmethod
    def headers(self, method: str, path: str) -> Headers | None:
        """Return the headers for one attempt, or None where the flow has to run first."""

    @abstractmethod
    def refused(self, headers: Headers) -> bool:
        """Note that a request with these headers was answered 401; return whether the flow can get others."""

    @property
    @abstractmethod
    def account(self) -> str:
        """Name of the caller, without a secret: an outbox keeps the statuses of different callers apart."""

    @abstractmethod
    def secrets(self) -> Iterable[str]:
        """Return the texts that must not be repeated in any message."""


def secret_problem(name: str, value: object) -> str:
    """Return what is wrong with a secret or a login, or an empty text; nothing of it is quoted."""
    if not isinstance(value, str) or not value:
        return f"{name} must be a non-empty str"
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"{name} holds a character that UTF-8 cannot carry"
    return ""
