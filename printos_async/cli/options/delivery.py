"""Delivery options of ``printos push --follow`` and ``printos worker``; their defaults are the library's."""

import inspect
from functools import partial
from typing import Annotated, Any, Literal

import typer
from attrs import asdict, frozen

from printos_async._client import PrintOSClient

PANEL = "Delivery"
_PUSHER = inspect.signature(PrintOSClient.status_pusher).parameters
_option = partial(typer.Option, rich_help_panel=PANEL)


def _default(name: str) -> Any:
    return _PUSHER[name].default


@frozen(kw_only=True)
class Delivery:
    """The options of every command that delivers with a pusher; named as its arguments."""

    consistency: Annotated[
        Literal["eventual", "strict"],
        _option(
            help="After a lost answer: eventual sends the newest status at once and again later, strict holds the device first."
        ),
    ] = _default("consistency")
    ambiguity_s: Annotated[
        float,
        _option(
            "--ambiguity",
            min=0.0,
            help="Seconds for which a request whose answer was lost may still be applied.",
        ),
    ] = _default("ambiguity_s")
    min_interval_s: Annotated[
        float,
        _option(
            "--min-interval",
            min=0.0,
            help="Minimum seconds between two statuses of a device; PrintOS asks for 60 to 120.",
        ),
    ] = _default("min_interval_s")
    skip_unchanged: Annotated[
        bool, _option("--skip-unchanged", help="Do not send a status that equals the last one sent.")
    ] = _default("skip_unchanged")
    deadline_s: Annotated[
        float | None,
        _option(
            "--deadline",
            min=0.0,
            help="Seconds after which a status that is not delivered fails; no limit by default.",
        ),
    ] = _default("deadline_s")
    max_pending_devices: Annotated[
        int,
        _option(min=1, help="Maximum number of devices with a waiting status; reading pauses at the limit."),
    ] = _default("max_pending_devices")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of ``PrintOSClient.status_pusher`` that differ from its defaults."""
        return asdict(self, filter=lambda option, value: value != option.default)
