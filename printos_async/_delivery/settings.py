"""Pusher settings, checked, and the assembly of a pusher from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import field, frozen, validators

from printos_async._common.checks import at_least, one_of
from printos_async._config import Tenant

from .device_state import DeliveryPolicy
from .outbox.selection import make_backend
from .pusher import StatusPusher
from .results import Reporter

if TYPE_CHECKING:
    from printos_async._execution.channel import Channel
    from printos_async.outbox import Outbox

# How long an uncertain write may still land. Proxies commonly give up on a queued request
# after 30 to 60 s, most much earlier; a longer time makes the end of a push wait longer after a timeout.
DEFAULT_AMBIGUITY_S = 5.0


@frozen(kw_only=True)
class PusherSettings:
    """Settings of a pusher, as documented in ``PrintOSClient.status_pusher``.

    Raises:
        ConfigurationError: A setting is out of range.
    """

    consistency: Literal["eventual", "strict"] = field(validator=one_of("eventual", "strict"))
    ambiguity_s: float = field(validator=at_least(0.0))
    min_interval_s: float = field(validator=at_least(0.0))
    skip_unchanged: bool
    unchanged_max_age_s: float = field(validator=at_least(0.0))
    max_pending_devices: int = field(validator=at_least(1))
    on_full: Literal["wait", "raise"] = field(validator=one_of("wait", "raise"))
    deadline_s: float | None = field(validator=validators.optional(at_least(0.0)))
    drain_timeout_s: float | None = field(validator=validators.optional(at_least(0.0)))

    def make_pusher(self, channel: Channel, outbox: Outbox | None) -> StatusPusher:
        """Return a pusher with these settings.

        Raises:
            ConfigurationError: ``outbox`` is not an outbox, or its lease is too short for the client's ``timeout_s``.
        """
        policy = DeliveryPolicy(
            patient=True,
            strict=self.consistency == "strict",
            ambiguity_s=self.ambiguity_s,
            min_interval_s=self.min_interval_s,
            unchanged_max_age_s=self.unchanged_max_age_s if self.skip_unchanged else 0.0,
            deadline_s=self.deadline_s,
        )
        reporter = Reporter(channel.executor.hooks)
        backend = make_backend(
            outbox,
            channel.executor,
            channel.operations,
            answers=channel.answers,
            policy=policy,
            reporter=reporter,
            tenant=Tenant("", "", "") if outbox is None else channel.tenant,
            timeout_s=channel.timeout_s,
            max_pending_devices=self.max_pending_devices,
            on_full=self.on_full,
        )
        return StatusPusher(
            channel.executor, channel.operations, backend, reporter, drain_timeout_s=self.drain_timeout_s
        )
