"""Option ``--listen``: the address of health and metrics, and the error for one that cannot be listened on."""

import re
from importlib.util import find_spec
from typing import Annotated, Self

import typer
from attrs import frozen

from printos_async._common.http import is_loopback
from printos_async.cli.terminal.output import CommandError

ListenTo = Annotated[
    str | None,
    typer.Option(
        "--listen",
        metavar="HOST:PORT",
        help="Serve /livez, /readyz and /metrics over HTTP, such as on 127.0.0.1:9464; port 0 is a free one.",
    ),
]
_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>[0-9]{1,5})")


def listen_error(where: object, error: Exception, *, options: str) -> CommandError:
    """Return the error for an address that cannot be listened on; ``options`` are those that name another."""
    # Without strerror: a host that cannot be encoded as a name, such as one of 70 letters.
    reason = getattr(error, "strerror", None) or error
    return CommandError(f"cannot listen on {where}: {reason}; give another {options}")


@frozen
class ListenAddress:
    """An address to listen on."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address that the option names.

        Raises:
            CommandError: It is no address, or the extra for it is not installed.
        """
        found = _ADDRESS.fullmatch(text)
        if found is None or int(found["port"]) > 65535:
            raise CommandError("--listen needs HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464")
        if find_spec("prometheus_client") is None:
            raise CommandError("--listen needs prometheus-client: pip install 'printos-async[metrics]'")
        return cls(found["ipv6"] or found["host"], int(found["port"]))
