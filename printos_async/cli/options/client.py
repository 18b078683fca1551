"""What a client is made from, in a form that can be handed to another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import attrs
from attrs import field, frozen

from printos_async._client import PrintOSClient
from printos_async._config import auth_from_env
from printos_async._errors import ConfigurationError
from printos_async._execution.concurrency import ConcurrencyLimit
from printos_async._execution.retry import RetryPolicy
from printos_async.cli.terminal.output import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from printos_async._events import Hook


@frozen(kw_only=True)
class ClientSettings:
    """What a client is made from.

    Attributes:
        base_url: Where PrintOS is.
        credentials: The environment variables that say who calls, by name; they hold secrets.
        timeout_s: Seconds for each request.
        max_in_flight: Requests in flight at once.
        max_attempts: Requests for one status at most.
        insecure_http: Whether plain HTTP to another machine is allowed.
    """

    base_url: str
    credentials: Mapping[str, str] = field(repr=False)
    timeout_s: float
    max_in_flight: int
    max_attempts: int
    insecure_http: bool

    def make_client(self, *, hooks: Iterable[Hook] = ()) -> PrintOSClient:
        """Make a client.

        Raises:
            ConfigurationError: The credentials are missing or contradictory.
            CommandError: Another setting is unsafe or out of range.
        """
        auth = auth_from_env(self.credentials)
        try:
            return PrintOSClient(
                self.base_url,
                auth=auth,
                timeout_s=self.timeout_s,
                limit=ConcurrencyLimit(maximum=self.max_in_flight, initial=self.max_in_flight),
                retry=RetryPolicy(max_attempts=self.max_attempts),
                hooks=hooks,
                allow_insecure_http=self.insecure_http,
            )
        except ConfigurationError as error:
            raise CommandError(_in_words_of_the_command(str(error))) from error

    def parts(self, count: int) -> list[Self]:
        """Give the settings of as many clients as together have as many requests in flight as this one.

        Fewer than asked for where there are not as many requests.
        """
        count = min(count, self.max_in_flight)
        share, rest = divmod(self.max_in_flight, count)
        return [attrs.evolve(self, max_in_flight=share + (number < rest)) for number in range(count)]

    def to_json(self) -> dict[str, Any]:
        """Give them for another process, secrets included: never to be written anywhere else."""
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` gave."""
        return cls(**value)


def _in_words_of_the_command(message: str) -> str:
    """Say what to do with an option where the library says it with an argument."""
    for argument, option in (
        ("pass allow_insecure_http=True", "add --insecure-http"),
        ("give them as auth=HmacAuth(key, secret)", "give them as --key with PRINTOS_SECRET"),
        ("base_url", "the base URL (--base-url or PRINTOS_BASE_URL)"),
    ):
        message = message.replace(argument, option)
    return message
