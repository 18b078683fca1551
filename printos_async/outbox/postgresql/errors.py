"""What errors of PostgreSQL, of its driver and of the system say: whether to try again, and how."""

from __future__ import annotations

import ssl

from sqlalchemy.exc import DBAPIError

# The session is of no use, and those beside it are likely to be no better: it is read-only (after a fail-over, say),
# it lacks a prepared statement, or has one that does not fit the tables any more.
_UNPREPARED_STATES = {"26000", "42P05"}
_USELESS_STATES = _UNPREPARED_STATES | {"25006", "0A000"}
# SQLAlchemy's own error for a statement that does not fit any more, which has no state.
_OUTDATED = "InvalidCachedStatementError"
# Of several servers none is the one that may be written to, until a fail-over is over.
_NO_PRIMARY = "TargetServerAttributeNotMatched"
# Deadlock, serialization failure, a server that stops or starts, too many connections; and all of class 08.
_PASSING_STATES = _USELESS_STATES | {"40P01", "40001", "57P01", "57P02", "57P03", "53300"}


def passes(error: BaseException) -> bool:
    """Tell whether an error of the server, the driver or the system may be gone in a moment."""
    if advice(error):
        return False
    if isinstance(error, DBAPIError):
        if error.connection_invalidated or is_useless(error):
            return True
        return passes(error.orig) if error.orig is not None else False
    state = state_of(error)
    return (
        # Connecting to a server raises what the system and the driver raise.
        isinstance(error, OSError)
        or state in _PASSING_STATES
        or state.startswith("08")
        or type(error).__name__ == _NO_PRIMARY
    )


def state_of(error: BaseException | None) -> str:
    """Return PostgreSQL's code of an error; empty if it has none."""
    return str(getattr(error, "sqlstate", None) or "")


def is_useless(error: DBAPIError) -> bool:
    """Tell whether a session will not do any more, although it answers."""
    return state_of(error.orig) in _USELESS_STATES or type(error.orig).__name__ == _OUTDATED


def is_unprepared(error: DBAPIError) -> bool:
    """Tell whether a prepared statement is in another session than the one that was to run it."""
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
