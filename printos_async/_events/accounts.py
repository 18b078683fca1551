"""Events of accounts: their credentials are refused, or accepted again."""

from __future__ import annotations

from attrs import frozen


@frozen
class AccountHeld:
    """PrintOS refuses an account's credentials: its statuses wait, and only probes are sent.

    Emitted once, until the account is accepted again.

    Attributes:
        account: The account, without a secret: ``key k123…``, ``login prin…`` or ``device dev-1``.
        cause: The error's class, by name.
        status: The answer's status code; None where nothing was sent, because there are no credentials.
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
        is_corrected: Requests are signed with PrintOS's time from now on. False beyond a day.
    """

    account: str
    ahead_s: float
    is_corrected: bool
