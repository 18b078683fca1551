"""Selection of a pusher's delivery backend: memory alone, an exclusive outbox, or a shared one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeGuard

from printos_async._delivery.engine import Engine
from printos_async._errors import ConfigurationError

from .backend import MemoryBackend
from .exclusive import ExclusiveBackend
from .shared import SharedBackend

if TYPE_CHECKING:
    from printos_async._api.requests import Operations
    from printos_async._api.responses import Answers
    from printos_async._config import Tenant
    from printos_async._delivery.device_state import DeliveryPolicy
    from printos_async._delivery.results import Reporter
    from printos_async._execution.executor import Executor
    from printos_async.outbox import Outbox, PrivateOutbox

    from .backend import DeliveryBackend

# A lease must last this many times as long as a request may.
LEASE_PER_TIMEOUT = 2
_OWNED_PER_PERMIT = 4
_MIN_OWNED_DEVICES = 1_024


def make_backend(
    outbox: Outbox | None,
    executor: Executor,
    operations: Operations,
    *,
    answers: Answers,
    policy: DeliveryPolicy,
    reporter: Reporter,
    tenant: Tenant,
    timeout_s: float,
    max_pending_devices: int,
    on_full: Literal["wait", "raise"],
) -> DeliveryBackend:
    """Return the backend for an outbox, or for none; ``tenant`` owns the rows of the outbox.

    Raises:
        ConfigurationError: ``outbox`` is not an outbox, or its lease is too short for ``timeout_s``.
    """
    if outbox is None:
        return MemoryBackend(
            Engine(executor, answers, policy, reporter.settle),
            reporter,
            max_pending_devices=max_pending_devices,
            on_full=on_full,
        )
    require_outbox(outbox)
    # Requests in flight have to end, and a renewal may be late, before the lease ends.
    if outbox.lease_s < LEASE_PER_TIMEOUT * timeout_s:
        raise ConfigurationError(
            f"the outbox's lease_s must be at least {LEASE_PER_TIMEOUT} times timeout_s ({timeout_s} s)"
        )
    if _is_private(outbox):
        return ExclusiveBackend(
            outbox,
            Engine(executor, answers, policy, reporter.settle),
            operations,
            policy,
            reporter,
            tenant=tenant,
            timeout_s=timeout_s,
            max_pending_devices=max_pending_devices,
            on_full=on_full,
        )
    # Others cannot send for the devices that one worker owns: it owns no more than keeps its permits in use, and
    # takes what it puts.
    max_devices = max(_MIN_OWNED_DEVICES, _OWNED_PER_PERMIT * executor.limiter.maximum)
    return SharedBackend(
        outbox,
        executor,
        operations,
        answers,
        policy,
        reporter=reporter,
        tenant=tenant,
        timeout_s=timeout_s,
        max_devices=min(max_devices, max_pending_devices),
    )


def require_outbox(outbox: object) -> None:
    """Raise ``ConfigurationError`` unless ``outbox`` is an outbox."""
    if not callable(getattr(outbox, "claim", None)):
        raise ConfigurationError(
            f"outbox must be SqlOutbox(url) or MemoryOutbox(), not {type(outbox).__name__}"
        )


def _is_private(outbox: Outbox) -> TypeGuard[PrivateOutbox]:
    return not outbox.is_shared
