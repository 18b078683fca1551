"""What a worker needs to know, in a form that can be handed to another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import attrs
from attrs import field, frozen

from printos_async._errors import ConfigurationError
from printos_async.cli.terminal.output import CommandError
from printos_async.outbox import SqlOutbox

from .client import ClientSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from printos_async._client import PrintOSClient
    from printos_async._delivery.pusher import StatusPusher


@frozen(kw_only=True)
class WorkerSettings:
    """What a worker needs to know.

    Attributes:
        client: What its client is made from.
        outbox: The URL of the outbox; may hold a password.
        lease_s: Seconds after which others take over what a worker had that has died.
        pusher: The other arguments of ``PrintOSClient.status_pusher`` that were given.
        drain_timeout_s: Seconds for finishing what it has when it is told to stop.
    """

    client: ClientSettings
    outbox: str = field(repr=False)
    lease_s: float
    pusher: Mapping[str, Any]
    drain_timeout_s: float

    def make_pusher(self, client: PrintOSClient) -> StatusPusher:
        """Make a pusher that works on the outbox; it opens and closes it.

        Raises:
            ConfigurationError: The outbox's URL is of another kind, or what it needs is not installed.
            CommandError: A setting is out of range.
        """
        outbox = SqlOutbox(self.outbox, lease_s=self.lease_s)
        try:
            return client.status_pusher(outbox=outbox, **self.pusher)
        except ConfigurationError as error:
            message = str(error).replace("the outbox's lease_s", "--lease").replace("timeout_s", "--timeout")
            raise CommandError(message) from error

    def parts(self, count: int) -> list[Self]:
        """Give the settings of so many workers, which share out the requests in flight."""
        return [attrs.evolve(self, client=client) for client in self.client.parts(count)]

    def to_json(self) -> dict[str, Any]:
        """Give them for another process, secrets included: never to be written anywhere else."""
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` gave."""
        return cls(**{**value, "client": ClientSettings.from_json(value["client"])})
