"""The URL of an outbox in a database."""

from __future__ import annotations

import sqlite3
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING

from printos_async._errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import URL

    from printos_async.outbox.postgresql.url import ServerParameters

_EXTRAS = {"sqlite": "sql", "postgresql": "postgres"}
_DRIVERS = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}
# A file needs no driver: see ``outbox.sqlite.engine``.
_NEEDED = {"sqlite": ("sqlalchemy",), "postgresql": ("sqlalchemy", "greenlet", "asyncpg")}
_POSSIBLE = (
    "sqlite+aiosqlite:///FILE (sqlite+aiosqlite:////FILE for an absolute path) or"
    " postgresql+asyncpg://USER:PASSWORD@HOST/DATABASE"
)
_SECRET_PARAMETERS = {"sslpassword"}
# With RETURNING and MATERIALIZED.
_OLDEST_SQLITE = (3, 35)


def parse_url(url: str) -> URL:
    """Return the parsed URL.

    Raises:
        ConfigurationError: It is of another kind, or the extra for it is not installed. The message never holds the
            URL, which may contain a password.
    """
    scheme = url.partition("://")[0] if "://" in url else ""
    kind, _, driver = scheme.partition("+")
    if _DRIVERS.get(kind) != driver:
        named = (
            f"not one that begins with {scheme!r}" if scheme.replace("+", "").isalnum() else "not this one"
        )
        raise ConfigurationError(f"the outbox's URL must be {_POSSIBLE}, {named}")
    if missing := [name for name in _NEEDED[kind] if find_spec(name) is None]:
        raise ConfigurationError(
            f"an outbox in a database needs {' and '.join(missing)}: pip install 'printos-async[{_EXTRAS[kind]}]'"
        )
    from sqlalchemy import make_url  # noqa: PLC0415 - optional
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 - optional

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError(f"the outbox's URL cannot be read; it must be {_POSSIBLE}") from None
    _require_text(parsed)
    if kind == "sqlite":
        if parsed.username or parsed.password or parsed.host or parsed.port:
            raise ConfigurationError(
                f"the outbox's URL names a host; before a path there are three or four slashes: {_POSSIBLE}"
            )
        if parsed.query:
            raise ConfigurationError(
                f"the outbox's URL has unknown parameters: {', '.join(sorted(parsed.query))}; a file has none"
            )
        if parsed.database in {None, "", ":memory:"}:
            raise ConfigurationError(
                "the outbox's URL names no file: MemoryOutbox() keeps statuses in memory"
            )
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise ConfigurationError(
                f"an outbox in a file needs SQLite 3.35, and this Python has {sqlite3.sqlite_version}"
            )
    return parsed


def _require_text(url: URL) -> None:
    """Refuse what neither a path nor a server's protocol can carry."""
    values = chain.from_iterable(url.normalized_query.values())
    for text in filter(None, (url.username, url.password, url.host, url.database, *values)):
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise ConfigurationError(
                "the outbox's URL has a NUL or a byte that is no UTF-8; choose a name without it"
            )


def server_parameters(url: URL) -> ServerParameters | None:
    """Return what the URL says about a PostgreSQL server; None for a file."""
    if url.get_backend_name() == "sqlite":
        return None
    from printos_async.outbox.postgresql.url import ServerParameters  # noqa: PLC0415 - optional

    return ServerParameters.of(url)


def hide_secrets(url: URL) -> str:
    """Return the URL as text for people, without its passwords."""
    hidden = dict.fromkeys(_SECRET_PARAMETERS & url.query.keys(), "***")
    return url.update_query_dict(hidden).render_as_string(hide_password=True)
