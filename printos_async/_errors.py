"""The errors, all under one root.

::

    PrintOSError
    ├─ ConfigurationError (ValueError)
    ├─ ClientClosedError (RuntimeError)
    ├─ InvalidDeviceIdError, InvalidStatusError, InvalidProvisionRequestError (ValueError)
    ├─ APIError                .method .path .attempts
    │  ├─ TransportError       .may_have_arrived
    │  │  ├─ RequestTimeoutError (TimeoutError)
    │  │  └─ ProxyError        .status
    │  ├─ StatusError          .status .body .request_id .retry_after_s
    │  │  ├─ BadRequestError 400/422      ├─ AuthenticationError 401
    │  │  ├─ PermissionDeniedError 403    ├─ NotFoundError 404
    │  │  ├─ ConflictError 409            ├─ RateLimitError 429
    │  │  └─ ServerError 5xx
    │  ├─ ResponseDecodeError  .status
    │  └─ MissingCredentialsError
    ├─ OutboxError
    │  └─ OutboxCorruptError
    ├─ PusherClosedError
    └─ PusherFullError

No text of an error contains a key's secret, a password or a token, and neither does its cause chain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class PrintOSError(Exception):
    """Base class of every error that this package raises on purpose."""


class ConfigurationError(PrintOSError, ValueError):
    """A setting is missing, contradictory or unsafe; the message names it and the remedy."""


class ClientClosedError(PrintOSError, RuntimeError):
    """The client was closed, or belongs to another event loop or process; make a new one there."""


class InvalidDeviceIdError(PrintOSError, ValueError):
    """A device identifier would change the request's path, or is not 1 to 256 characters of text."""


class InvalidStatusError(PrintOSError, ValueError):
    """A status cannot be sent as JSON, or breaks the specification; the text names the field. Nothing was sent."""


class InvalidProvisionRequestError(PrintOSError, ValueError):
    """A provision request cannot be sent as JSON, or breaks the specification. Nothing was sent."""


class APIError(PrintOSError):
    """A call of the API failed.

    Attributes:
        method: The HTTP method, in capitals.
        path: The request's path, as it was sent.
        attempts: How many requests were made for this call; 0 if none left this process.
    """

    def __init__(self, message: str, *, method: str, path: str, attempts: int = 1) -> None:
        super().__init__(message)
        self.method = method
        self.path = path
        self.attempts = attempts

    def __str__(self) -> str:
        attempts = "" if self.attempts == 1 else f" ({self.attempts} attempts)"
        return f"{self.method} {self.path}{attempts}: {super().__str__()}"

    def __reduce__(self) -> tuple[Callable[..., APIError], tuple[Any, ...]]:
        # Keyword-only arguments: without this the error cannot cross a process boundary.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[APIError], args: tuple[Any, ...], state: dict[str, Any]) -> APIError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class TransportError(APIError):
    """No complete answer came.

    Attributes:
        may_have_arrived: False only if the server certainly received no request. Otherwise True: the write may have
            been applied, or may be applied later.
        local: True if this machine had no file descriptor or port left for a connection, or if ``verify`` failed. The
            server may be well.
    """

    def __init__(
        self,
        message: str,
        *,
        method: str,
        path: str,
        attempts: int = 1,
        may_have_arrived: bool = True,
        local: bool = False,
    ) -> None:
        super().__init__(message, method=method, path=path, attempts=attempts)
        self.may_have_arrived = may_have_arrived
        self.local = local


class RequestTimeoutError(TransportError, TimeoutError):
    """The attempt's total time ran out before the answer was complete."""


class ProxyError(TransportError):
    """The proxy cannot be reached, or refuses to connect; nothing reached the server.

    Attributes:
        status: The status code with which the proxy refused, such as 407 for its credentials; None if it sent no
            answer.
    """

    def __init__(
        self, message: str, *, method: str, path: str, attempts: int = 1, status: int | None = None
    ) -> None:
        super().__init__(message, method=method, path=path, attempts=attempts, may_have_arrived=False)
        self.status = status


class StatusError(APIError):
    """The server answered with a status other than 2xx.

    Attributes:
        status: The status code, registered or not.
        body: The beginning of the body as text, with every secret of this client replaced.
        request_id: The server's identifier for the request, if it sent one.
        retry_after_s: Seconds for which the server asked the client to wait, if it did.
    """

    def __init__(
        self,
        message: str,
        *,
        method: str,
        path: str,
        status: int,
        attempts: int = 1,
        body: str = "",
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, method=method, path=path, attempts=attempts)
        self.status = status
        self.body = body
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class BadRequestError(StatusError):
    """400 or 422: the server refuses the request's content."""


class AuthenticationError(StatusError):
    """401: the credentials were refused, also after a new login."""


class PermissionDeniedError(StatusError):
    """403: the credentials are valid, but do not permit this request."""


class NotFoundError(StatusError):
    """404: there is no such device, or the base URL is wrong."""


class ConflictError(StatusError):
    """409: the request contradicts the server's state."""


class RateLimitError(StatusError):
    """429: too many requests. Wait ``retry_after_s``, if the server sent it."""


class ServerError(StatusError):
    """Any 5xx."""


class ResponseDecodeError(APIError):
    """A 2xx answer has a body that the specification does not allow.

    Attributes:
        status: The 2xx status code.
        from_intermediary: True if the body is HTML or XML, which PrintOS does not send: a proxy, a captive portal or a
            maintenance page answered. The request itself may be correct.
    """

    def __init__(
        self,
        message: str,
        *,
        method: str,
        path: str,
        status: int,
        attempts: int = 1,
        from_intermediary: bool = False,
    ) -> None:
        super().__init__(message, method=method, path=path, attempts=attempts)
        self.status = status
        self.from_intermediary = from_intermediary


class MissingCredentialsError(APIError):
    """There are no credentials for a request: the lookup or the secret's function returned none, or failed.

    Nothing was sent for this attempt; ``attempts`` is the number of earlier ones.
    """


class OutboxError(PrintOSError):
    """The outbox could not store or return a status."""


class OutboxCorruptError(OutboxError):
    """The outbox's file is damaged."""


class PusherClosedError(PrintOSError):
    """The pusher or spooler accepts no more statuses: it is draining or closed."""


class PusherFullError(PrintOSError):
    """Statuses of ``max_pending_devices`` devices are pending, and the pusher was made with ``on_full="raise"``."""


_BY_STATUS: dict[int, type[StatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: BadRequestError,
    429: RateLimitError,
}


def status_error_class(status: int) -> type[StatusError]:
    """Return the error class for a status code; ``StatusError`` itself for a code without a class of its own."""
    if 500 <= status <= 599:
        return ServerError
    return _BY_STATUS.get(status, StatusError)
