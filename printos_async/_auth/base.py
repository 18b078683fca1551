"""Base class of the credentials, and the secrets that they hold."""

from __future__ import annotations

import asyncio
import inspect
from abc import abstractmethod
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import httpx

from printos_async._common import optional_httpx2
from printos_async._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from printos_async._events import ClockSkewDetected

SecretSource: TypeAlias = "str | Callable[[], str]"

# A flow yields requests of the library that it was called with.
Request = TypeVar("Request", httpx.Request, optional_httpx2.Request)
Response: TypeAlias = httpx.Response | optional_httpx2.Response
AnyAuth: TypeAlias = httpx.Auth | optional_httpx2.Auth

Headers = tuple[tuple[str, str], ...]

# An extension of the client's own requests; true on one that was refused once already and must not be replayed again.
REPLAY_EXTENSION = "printos_async.replay"


class ReadyAuth(httpx.Auth, optional_httpx2.Auth):  # type: ignore[misc]  # whose flows differ in the classes of their requests
    """An ``Auth`` of httpx and httpx2 that usually knows its headers without a request of its own.

    The client calls ``headers`` for every attempt. It runs the flow of ``httpx.Auth``, which costs more, only if the
    credentials have to be fetched first (a login). Other clients of httpx and httpx2 always run the flow.
    """

    @abstractmethod
    def headers(self, method: str, path: str) -> Headers | None:
        """Return the headers for one attempt, or None where the flow has to run first."""

    def is_outdated(self, method: str, path: str, headers: Headers) -> bool:  # noqa: ARG002  # as in subclasses
        """Return whether a request with these headers would get others by now, another clock or secret."""
        return False

    @abstractmethod
    def refused(self, headers: Headers) -> bool:
        """Note that a request with these headers was answered 401; return whether the flow can get others."""

    def learn_clock(self, server_s: float) -> ClockSkewDetected | None:  # noqa: ARG002  # as in subclasses
        """Compare the clock with that of a server that has refused a request.

        Args:
            server_s: The server's time when its answer came, in seconds since the epoch.

        Returns:
            The event for a difference that was not known before; None where the credentials hold no time.
        """
        return None

    def may_pass(
        self,
        method: str,
        path: str,
        headers: Headers,
        *,
        status: int,
        server_s: float | None,
        emit: Callable[[ClockSkewDetected], object],
    ) -> bool:
        """Return whether a request that was refused with a 401 or 403 may be accepted with other headers.

        Args:
            method: The request's method.
            path: Its path.
            headers: Its headers.
            status: The answer's status code.
            server_s: As in ``learn_clock``; None if the answer does not tell.
            emit: Receives the event if the clocks differ.
        """
        skew = None if server_s is None else self.learn_clock(server_s)
        if skew is not None:
            emit(skew)
        try:
            # Of many that were in flight, only the first learns the clock or the secret; all are signed again.
            return self.is_outdated(method, path, headers) or (status == 401 and self.refused(headers))
        except SecretUnavailableError:
            return False

    def refresh(self) -> None:  # not abstract: most credentials have nothing to ask for
        """Ask for the secret again, if a function returns it."""

    @property
    @abstractmethod
    def account(self) -> str:
        """Name of the caller, without a secret: an outbox keeps the statuses of different callers apart."""

    @property
    def label(self) -> str:
        """Name of the caller for people: its kind and its first characters."""
        kind, _, name = self.account.partition(" ")
        return f"{kind} {name[:4]}…"

    @abstractmethod
    def secrets(self) -> Iterable[str]:
        """Return the texts that must not be repeated in any message."""


class SecretUnavailableError(ConfigurationError):
    """The function that returns a secret has failed, or has returned no secret."""


class Secret:
    """A secret, or the function that returns it.

    The function is called on the event loop when the secret is needed for the first time, and again by ``ask``.

    Args:
        name: What it is, for errors.
        source: The secret, checked by ``source_problem``, or a function without arguments that returns it.
    """

    __slots__ = ("_name", "_previous", "_source", "_value")

    def __init__(self, name: str, source: SecretSource) -> None:
        self._name = name
        self._source = source if callable(source) else None
        self._value = None if callable(source) else source
        self._previous: str | None = None

    @property
    def value(self) -> str:
        """The secret.

        Raises:
            SecretUnavailableError: The function failed.
        """
        if self._value is None:
            self.ask()
        return self._value or ""

    def ask(self) -> bool:
        """Call the function again, if there is one; return whether the secret has changed.

        Raises:
            SecretUnavailableError: The function failed. The secret stays as it was.
        """
        if self._source is None:
            return False
        problem, value = _called(self._name, self._source)
        if problem:
            raise SecretUnavailableError(problem)
        if value == self._value:
            return False
        self._previous, self._value = self._value, value
        return True

    def known(self) -> tuple[str, ...]:
        """Return the secret and the one before it, as far as they are known."""
        return tuple(value for value in (self._value, self._previous) if value)


def _called(name: str, source: Callable[[], str]) -> tuple[str, str]:
    try:
        value = source()
    except Exception as error:  # noqa: BLE001  # the caller's function: a vault, a file
        # By name only: the error's text may hold the secret.
        return f"the function that returns the {name} failed: {type(error).__name__}", ""
    problem = secret_problem(name, value)
    return (f"the function that returns the {name}: {problem}", "") if problem else ("", value)


def source_problem(name: str, source: object) -> str:
    """Return what is wrong with a secret or the function that returns it, or an empty text."""
    if inspect.iscoroutinefunction(source):
        return f"{name} must be text or a function, not a coroutine function"
    return "" if callable(source) else secret_problem(name, source)


def secret_problem(name: str, value: object) -> str:
    """Return what is wrong with a secret or a login, or an empty text; nothing of it is quoted."""
    if not isinstance(value, str) or not value:
        return f"{name} must be a non-empty str"
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"{name} holds a character that UTF-8 cannot carry"
    return ""


def is_cancelled() -> bool:
    """Return whether the current task is cancelled, although the caller's code has made something else of it."""
    return (task := asyncio.current_task()) is not None and task.cancelling() > 0
