"""Pusher settings, checked, and the assembly of a pusher from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeGuard

from attrs import field, frozen, validators

from printos_async._common.checks import at_least, one_of
from printos_async._errors import ConfigurationError

from .device_state import DeliveryPolicy
from .outbox.backend import MemoryBackend
from .outbox.exclusive import ExclusiveBackend
from .outbox.shared import SharedBackend
from .pusher import StatusPusher
from .results import Reporter

if TYPE_CHECKING:
    from printos_async._execution.channel import Channel
    from printos_async.outbox import Outbox, PrivateOutbox

    from .outbox.backend import DeliveryBackend

# A lease must last this many times as long as a request may.
LEASE_PER_TIMEOUT = 2


@frozen(kw_only=True)
class PusherSettings(DeliveryPolicy):
    """Settings of a pusher, as documented in ``PrintOSClient.status_pusher``.

    Raises:
        ConfigurationError: A setting is out of range.
    """

    patient: bool = field(default=True, init=False)
    max_pending_devices: int = field(validator=at_least(1))
    on_full: Literal["wait", "raise"] = field(validator=one_of("wait", "raise"))
    drain_timeout_s: float | None = field(validator=validators.optional(at_least(0.0)))

    def make_pusher(self, channel: Channel, outbox: Outbox | None) -> StatusPusher:
        """Return a pusher with these settings.

        Raises:
            ConfigurationError: ``outbox`` is not an outbox, or its lease is too short for the client's ``timeout_s``.
        """
        reporter = Reporter(channel.executor.hooks)
        backend = self._make_backend(channel, outbox, reporter)
        return StatusPusher(
            channel.executor, channel.operations, backend, reporter, drain_timeout_s=self.drain_timeout_s
        )

    def _make_backend(self, channel: Channel, outbox: Outbox | None, reporter: Reporter) -> DeliveryBackend:
        if outbox is None:
            return MemoryBackend(channel, self, reporter)
        require_outbox(outbox)
        # Requests in flight have to end, and a renewal may be late, before the lease ends.
        if outbox.lease_s < LEASE_PER_TIMEOUT * channel.timeout_s:
            raise ConfigurationError(
                f"the outbox's lease_s must be at least {LEASE_PER_TIMEOUT} times timeout_s ({channel.timeout_s} s)"
            )
        if _is_private(outbox):
            return ExclusiveBackend(outbox, channel, self, reporter)
        return SharedBackend(outbox, channel, self, reporter)


def require_outbox(outbox: object) -> None:
    """Raise ``ConfigurationError`` unless ``outbox`` is an outbox."""
    if not callable(getattr(outbox, "claim", None)):
        raise ConfigurationError(
            f"outbox must be SqlOutbox(url) or MemoryOutbox(), not {type(outbox).__name__}"
        )


def _is_private(outbox: Outbox) -> TypeGuard[PrivateOutbox]:
    return not outbox.is_shared
