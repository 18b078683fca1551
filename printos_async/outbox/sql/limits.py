"""Time limits of calls to a server. A module of its own, because the others need SQLAlchemy."""

from __future__ import annotations

from attrs import frozen


@frozen
class Limit:
    """Time limit of a call.

    Attributes:
        total_s: For all attempts, waiting for a connection included.
        is_long: Whether the statement may be slow. Its connection is tested before, and the total is the only limit
            then; otherwise each attempt on a used connection has a limit of its own.
    """

    total_s: float
    is_long: bool = False


# Two in a row end within 15 s: a put may have to wait for the one before it.
PROMPT = Limit(7.0)
USUAL = Limit(30.0)
LONG = Limit(600.0, is_long=True)
