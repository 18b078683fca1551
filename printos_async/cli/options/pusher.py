"""The options of ``printos push --follow`` and ``printos worker``; their defaults are the library's."""

import inspect
from typing import Annotated, Any, Literal

import typer

from printos_async._checks import require_number
from printos_async._client import PrintOSClient
from printos_async.cli.commands.follow import FollowSettings
from printos_async.cli.terminal.output import CommandError

PANEL = "Delivery"
_PUSHER = inspect.signature(PrintOSClient.status_pusher).parameters

# Within what is left to a service that is told to stop, before it is killed: 90 s under systemd, 30 s in Kubernetes,
# 10 s under Docker, for which --drain-timeout has to be less.
DEFAULT_DRAIN_TIMEOUT_S = 10.0


def _option(name: str, *, library_name: str | None = None, default: str = "", **rest: Any) -> Any:
    if library_name is not None:
        value = _PUSHER[library_name].default
        default = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return typer.Option(name, rich_help_panel=PANEL, show_default=default, **rest)


Consistency = Annotated[
    Literal["eventual", "strict"] | None,
    _option(
        "--consistency",
        library_name="consistency",
        help="After a lost answer: send the newest at once and once more later, or hold the device first.",
    ),
]
AmbiguityS = Annotated[
    float | None,
    _option(
        "--ambiguity",
        library_name="ambiguity_s",
        min=0.0,
        help="Seconds for which a request whose answer was lost may still be applied.",
    ),
]
MinIntervalS = Annotated[
    float | None,
    _option(
        "--min-interval",
        library_name="min_interval_s",
        min=0.0,
        help="Seconds from one status of a device to its next; PrintOS asks for 60 to 120.",
    ),
]
SkipUnchanged = Annotated[
    bool,
    typer.Option(
        "--skip-unchanged",
        rich_help_panel=PANEL,
        help="Leave out a status that equals the last one sent.",
    ),
]
DeadlineS = Annotated[
    float | None,
    _option(
        "--deadline",
        library_name="deadline_s",
        min=0.0,
        help="Seconds in which a status must be delivered, or it fails.",
    ),
]
MaxPendingDevices = Annotated[
    int | None,
    _option(
        "--max-pending-devices",
        library_name="max_pending_devices",
        min=1,
        help="Devices that may wait; reading waits beyond.",
    ),
]
DrainTimeoutS = Annotated[
    float | None,
    _option(
        "--drain-timeout",
        default=f"{DEFAULT_DRAIN_TIMEOUT_S:g} after a signal, none at the end of a pipe",
        min=0.0,
        help="Seconds to send what was read, once there is no more.",
    ),
]


def follow_settings(
    *, is_wanted: bool, drain_timeout_s: float | None, skip_unchanged: bool, **given: object
) -> FollowSettings | None:
    """Give the settings, from the options as they were given; None if they are not wanted.

    Args:
        is_wanted: Whether ``--follow`` was given.
        drain_timeout_s: What ``--drain-timeout`` says, or None.
        skip_unchanged: Whether ``--skip-unchanged`` was given.
        **given: The other arguments of ``status_pusher``; None where the option was not given.

    Raises:
        CommandError: One of them was given, but not ``--follow``.
        ConfigurationError: The timeout is no number.
    """
    pusher = pusher_arguments(skip_unchanged=skip_unchanged, **given)
    if drain_timeout_s is not None:
        require_number("--drain-timeout", drain_timeout_s, 0)
    if not is_wanted:
        if pusher or drain_timeout_s is not None:
            name = next(iter(pusher), "drain_timeout").removesuffix("_s").replace("_", "-")
            raise CommandError(f"--{name} needs --follow")
        return None
    return FollowSettings(pusher, drain_timeout_s)


def pusher_arguments(*, skip_unchanged: bool, **given: object) -> dict[str, Any]:
    """Give the arguments of ``status_pusher``, of those options that were given."""
    pusher = {name: value for name, value in given.items() if value is not None}
    return {**pusher, "skip_unchanged": True} if skip_unchanged else pusher
