"""Events of accounts: their credentials are refused, or accepted again."""

from __future__ import annotations

from attrs import frozen


@frozen
class AccountHeld:
    """PrintOS refuses an account's credentials, or there are none: its statuses wait, and only probes are sent.

    Emitted once for each hold.

    Attributes:
        account: The account, without a secret: ``key k123…``, ``login prin…`` or ``device dev-1``.
        cause: Name of the error's class.
        status: The answer's status code; None if nothing was sent because there are no credentials.
    """

    account: str
    cause: str
    status: int | None


@frozen
class AccountResumed:
    """An account is held no longer.

    PrintOS accepts its credentials again, its devices have got other credentials, or nothing waits for it and
    ``refresh_credentials`` was called.

    Attributes:
        account: As in ``AccountHeld``.
    """

    account: str


@frozen
class ClockSkewDetected:
    """PrintOS refused a signature, and its clock is more than a minute away from this machine's.

    Attributes:
        account: As in ``AccountHeld``.
        ahead_s: Seconds by which PrintOS's clock is ahead.
        is_corrected: Whether requests are signed with PrintOS's time from now on; False if the clocks differ by more
            than a day.
    """

    account: str
    ahead_s: float
    is_corrected: bool
