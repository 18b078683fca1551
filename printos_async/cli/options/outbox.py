"""Outbox options: its URL, from an option or from the environment."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from attrs import frozen

from printos_async._client import PrintOSClient
from printos_async.cli.terminal.log import LibraryWarnings
from printos_async.cli.terminal.output import EXIT_FAILED, CommandError
from printos_async.outbox import SqlOutbox
from printos_async.outbox.sql.url import parse_url

from .connection import Connection

T = TypeVar("T")

OutboxUrl = Annotated[
    str | None,
    typer.Option(
        "--outbox",
        metavar="URL",
        help="URL of the outbox, such as sqlite+aiosqlite:///spool.db; by default PRINTOS_OUTBOX, the place for a URL with a password.",
    ),
]


def outbox_url(given: str | None) -> str:
    """Return the outbox's URL. It may hold a password, so never show it.

    Raises:
        CommandError: Neither the option nor the environment variable is set.
    """
    url = given or os.environ.get("PRINTOS_OUTBOX")
    if not url:
        raise CommandError(
            "no outbox is set; set PRINTOS_OUTBOX or add --outbox, such as sqlite+aiosqlite:///spool.db"
        )
    return url


@frozen(kw_only=True)
class OutboxAccess(Connection):
    """The options of every command that administers an outbox."""

    outbox: OutboxUrl = None

    def run(
        self,
        use: Callable[[SqlOutbox], Awaitable[T]],
        *,
        client: PrintOSClient | None = None,
        except_for: Collection[str] = (),
    ) -> T:
        """Return what ``use`` returns of the outbox, opened for the account.

        Args:
            use: What to do with the outbox.
            client: A client of these options; by default a new one, which may prompt for a secret.
            except_for: Names of warnings that are not shown.

        Raises:
            CommandError: No URL is set, or its file does not exist.
            ConfigurationError: The URL is of another kind, or what it needs is not installed.
            OutboxError: It cannot be opened.
        """

        async def run(client: PrintOSClient, outbox: SqlOutbox) -> T:
            async with client.spooler(outbox):
                return await use(outbox)

        url = outbox_url(self.outbox)
        _require_file(url)
        with LibraryWarnings(except_for=except_for):
            client = client or self.make_client()  # outside of the event loop, for it may prompt
            return asyncio.run(run(client, SqlOutbox(url)))


def _require_file(url: str) -> None:
    """Refuse the path of a SQLite file that does not exist: opening it would create an empty outbox."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).exists():
        raise CommandError(
            f"there is no outbox at {parsed.database}; a pusher, printos push --spool or printos worker makes it",
            exit_code=EXIT_FAILED,
        )
