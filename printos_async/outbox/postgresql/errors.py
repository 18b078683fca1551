"""Classification of errors of PostgreSQL, its driver and the system: temporary or not, and what to do."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from printos_async._common.redaction import redact
from printos_async._errors import OutboxError

if TYPE_CHECKING:
    from collections.abc import Iterable

# The session is unusable, and others of the pool probably are too: it is read-only (after a fail-over, for example),
# lacks a prepared statement, or has one that is out of date since a change of the tables.
_UNPREPARED_STATES = {"26000", "42P05"}
_USELESS_STATES = _UNPREPARED_STATES | {"25006", "0A000"}
# SQLAlchemy's own error for a prepared statement that is out of date. It has no SQLSTATE.
_OUTDATED = "InvalidCachedStatementError"
# None of several servers may be written to, until a fail-over is complete.
_NO_PRIMARY = "TargetServerAttributeNotMatched"
# Deadlock, serialization failure, a server that stops or starts, too many connections; and all of class 08.
_TEMPORARY_STATES = _USELESS_STATES | {"40P01", "40001", "57P01", "57P02", "57P03", "53300"}


# The texts of these errors may contain values of the statement.
_CLASSES_WITH_VALUES = ("22", "23")


class NoAnswerError(TimeoutError):
    """A session was silent for too long and was terminated."""


def outbox_error(error: BaseException, secrets: Iterable[str]) -> OutboxError:
    """Return the ``OutboxError`` for an error of the server, the driver or the system.

    The text has no value of the statement and none of the secrets.
    """
    state = state_of(error)
    text = "" if state.startswith(_CLASSES_WITH_VALUES) else redact(_first_line(error), secrets)
    if isinstance(error, TimeoutError):
        return OutboxError(f"the outbox's database does not answer: {text or 'no connection in time'}")
    named = f"PostgreSQL error {state}" if state else type(error).__name__
    return OutboxError(f"the outbox's database cannot be used: {named}{text and ': '}{text}{advice(error)}")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    # SQLAlchemy writes the driver's class before the text.
    return text.rpartition(">: ")[2].split("\n", 1)[0]


def is_temporary(error: BaseException) -> bool:
    """Return whether an error of the server, the driver or the system may be temporary."""
    if advice(error):
        return False
    if isinstance(error, DBAPIError):
        if error.connection_invalidated or is_useless(error):
            return True
        return is_temporary(error.orig) if error.orig is not None else False
    state = state_of(error)
    return (
        # While connecting, errors of the system and the driver are not wrapped.
        isinstance(error, OSError)
        or state in _TEMPORARY_STATES
        or state.startswith("08")
        or type(error).__name__ == _NO_PRIMARY
    )


def state_of(error: BaseException | None) -> str:
    """Return the SQLSTATE of an error; empty if it has none."""
    return str(getattr(error, "sqlstate", None) or "")


def is_useless(error: DBAPIError) -> bool:
    """Return whether a session is unusable although it answers."""
    return state_of(error.orig) in _USELESS_STATES or type(error.orig).__name__ == _OUTDATED


def is_unprepared(error: DBAPIError) -> bool:
    """Return whether a pool has assigned another session, which lacks a prepared statement or has one of its name."""
    return state_of(error.orig) in _UNPREPARED_STATES


def advice(error: BaseException) -> str:
    """Return what to do about an error of TLS; empty for others."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "; name the file of the authority that signed it as sslrootcert in the outbox's URL"
    if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
        return (
            "; let the server offer TLS, or where nobody else can reach the network say sslmode=disable in the"
            " outbox's URL"
        )
    return ""
