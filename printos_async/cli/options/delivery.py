"""Delivery options of ``printos push --follow`` and ``printos worker``; their defaults are the library's."""

import inspect
from typing import Annotated, Any, Literal

import typer
from attrs import asdict, frozen

from printos_async._client import PrintOSClient

PANEL = "Delivery"
_PUSHER = inspect.signature(PrintOSClient.status_pusher).parameters

# Less than the time after which a service that does not stop is killed: 90 s under systemd, 30 s in Kubernetes.
# Docker kills after 10 s, so --drain-timeout has to be less there.
DEFAULT_DRAIN_TIMEOUT_S = 10.0


def _option(name: str, *, library_name: str | None = None, default: str = "", **rest: Any) -> Any:
    if library_name is not None:
        value = _PUSHER[library_name].default
        default = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return typer.Option(name, rich_help_panel=PANEL, show_default=default, **rest)


@frozen(kw_only=True)
class Delivery:
    """The options of every command that delivers with a pusher."""

    consistency: Annotated[
        Literal["eventual", "strict"] | None,
        _option(
            "--consistency",
            library_name="consistency",
            help="After a lost answer: send the newest at once and once more later, or hold the device first.",
        ),
    ] = None
    ambiguity_s: Annotated[
        float | None,
        _option(
            "--ambiguity",
            library_name="ambiguity_s",
            min=0.0,
            help="Seconds for which a request whose answer was lost may still be applied.",
        ),
    ] = None
    min_interval_s: Annotated[
        float | None,
        _option(
            "--min-interval",
            library_name="min_interval_s",
            min=0.0,
            help="Seconds from one status of a device to its next; PrintOS asks for 60 to 120.",
        ),
    ] = None
    skip_unchanged: Annotated[
        bool,
        typer.Option(
            "--skip-unchanged",
            rich_help_panel=PANEL,
            help="Leave out a status that equals the last one sent.",
        ),
    ] = False
    deadline_s: Annotated[
        float | None,
        _option(
            "--deadline",
            library_name="deadline_s",
            min=0.0,
            help="Seconds in which a status must be delivered, or it fails.",
        ),
    ] = None
    max_pending_devices: Annotated[
        int | None,
        _option(
            "--max-pending-devices",
            library_name="max_pending_devices",
            min=1,
            help="Devices that may wait; reading waits beyond.",
        ),
    ] = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of ``PrintOSClient.status_pusher`` for the options that were given."""
        return {
            name: value for name, value in asdict(self).items() if value is not None and value is not False
        }


DrainTimeoutS = Annotated[
    float | None,
    _option(
        "--drain-timeout",
        default=f"{DEFAULT_DRAIN_TIMEOUT_S:g} after a signal, none at the end of a pipe",
        min=0.0,
        help="Seconds to send what was read, once there is no more.",
    ),
]
