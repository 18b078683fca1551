"""Time limits of calls to a server. Apart from the sessions, which need SQLAlchemy, an extra."""

from __future__ import annotations

from attrs import frozen


@frozen
class Limit:
    """How long a call may take.

    Attributes:
        total_s: With all attempts, and with waiting for a connection.
        is_long: Whether a statement may take its time. Its connection is tried out before, and the total is the only
            limit then; otherwise the first attempt has a limit of its own.
    """

    total_s: float
    is_long: bool = False


# Two of them, one after the other, are over within 15 s: a put may have to wait for the one before it.
PROMPT = Limit(7.0)
USUAL = Limit(30.0)
LONG = Limit(600.0, is_long=True)
