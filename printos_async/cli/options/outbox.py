"""Where the outbox is: from an option, or from the environment."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

import typer

from printos_async.cli.terminal.output import CommandError
from printos_async.outbox import SqlOutbox

OutboxUrl = Annotated[
    str | None,
    typer.Option(
        "--outbox",
        metavar="URL",
        help="The outbox, such as sqlite+aiosqlite:///spool.db; else PRINTOS_OUTBOX, the better place for a password.",
        show_default=False,
    ),
]


def outbox_url(given: str | None) -> str:
    """Give the outbox's URL, which may hold a password: it is never to be shown.

    Raises:
        CommandError: Neither option nor environment says it.
    """
    url = given or os.environ.get("PRINTOS_OUTBOX")
    if not url:
        raise CommandError(
            "where is the outbox? set PRINTOS_OUTBOX or give --outbox, such as sqlite+aiosqlite:///spool.db"
        )
    return url


@asynccontextmanager
async def opened_outbox(url: str, account: str) -> AsyncGenerator[SqlOutbox, None]:
    """Give the outbox, open for one account, and close it at the end.

    Raises:
        ConfigurationError: The URL is of another kind, or what it needs is not installed.
        OutboxError: It cannot be opened.
    """
    outbox = SqlOutbox(url)
    try:
        await outbox.open(account)
        yield outbox
    finally:
        await outbox.aclose()
