"""Connection parameters of a PostgreSQL server in the URL of an outbox: hosts, TLS, session settings."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from printos_async._common.http import is_loopback
from printos_async._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import URL

APPLICATION_NAME = "printos-async"

_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_FILES: tuple[str, ...] = ("sslcert", "sslkey", "sslpassword", "sslrootcert")
_PARAMETERS = (
    *("application_name", "host", "passfile", "port", "prepared_statement_cache_size", "ssl"),
    *(*_FILES, "sslmode", "target_session_attrs"),
)
_SESSION_KINDS = ("any", "primary", "standby", "read-write", "read-only")
_HIGHEST_PORT = 65_535
_USERS_FILES = Path("~/.postgresql")


@frozen
class Host:
    """One server of a URL.

    Attributes:
        name: Name, address, or directory of a Unix socket; None for asyncpg's default.
        port: None for the default.
        tls: A mode of libpq, or the context if the connection must be encrypted.
    """

    name: str | None
    port: int | None
    tls: str | ssl.SSLContext


@frozen
class ServerParameters:
    """Connection parameters of a URL.

    Attributes:
        hosts: In the order in which they are tried.
        arguments: For ``asyncpg.connect``, without host, port and TLS.
        application_name: Name of the sessions, for example in ``pg_stat_activity``.
        prepares: Whether to prepare statements once for each session, until one turns out to be missing.
        secrets: Texts that must not be shown.
    """

    hosts: tuple[Host, ...]
    arguments: dict[str, Any]
    application_name: str
    prepares: bool
    secrets: tuple[str, ...]

    @classmethod
    def of(cls, url: URL) -> ServerParameters:
        """Return the parameters of a URL.

        Raises:
            ConfigurationError: A parameter is unknown or invalid, or one of its files cannot be read. The message
                does not contain the URL.
        """
        unknown = sorted(set(url.query) - {*_PARAMETERS})
        if unknown:
            raise ConfigurationError(
                f"the outbox's URL has unknown parameters: {', '.join(unknown)}; known are {', '.join(_PARAMETERS)}"
            )
        # Hosts and ports may have several values; of the other parameters the last one counts.
        given = {name: values[-1] for name, values in url.normalized_query.items()}
        names = _addresses(url)
        for name, port in names:
            _require_address(name, port)
        kind = given.get("target_session_attrs", "any" if len(names) == 1 else "read-write")
        _require("target_session_attrs", kind, _SESSION_KINDS)
        cache_size = given.get("prepared_statement_cache_size", "1")
        if not cache_size.isdecimal():
            raise ConfigurationError(
                "prepared_statement_cache_size in the outbox's URL must be a whole number"
            )
        arguments = {
            "user": url.username,
            "password": url.password,
            "database": url.database,
            "passfile": given.get("passfile"),
            "target_session_attrs": kind,
        }
        return cls(
            tuple(_hosts(names, given)),
            {name: value for name, value in arguments.items() if value is not None},
            given.get("application_name", APPLICATION_NAME),
            prepares=int(cache_size) > 0,
            secrets=tuple(str(secret) for secret in (url.password, given.get("sslpassword")) if secret),
        )


def _addresses(url: URL) -> list[tuple[str | None, int | None]]:
    hosts = _listed(url, "host") or [part for part in (url.host or "").split(",") if part]
    try:
        ports = [int(port) for port in _listed(url, "port")]
        split = [_split(host) for host in hosts]
    except ValueError:
        raise ConfigurationError("a port in the outbox's URL is not a number") from None
    if len(ports) == 1:
        ports *= len(hosts) or 1
    if ports and len(ports) != (len(hosts) or 1):
        raise ConfigurationError("the outbox's URL must have one port, or one for each host")
    if not hosts:
        return [(None, ports[0] if ports else url.port)]
    return [(host, ports[index] if ports else port or url.port) for index, (host, port) in enumerate(split)]


def _require_address(host: str | None, port: int | None) -> None:
    if port is not None and not 1 <= port <= _HIGHEST_PORT:
        raise ConfigurationError(f"a port in the outbox's URL must be from 1 to {_HIGHEST_PORT}")
    if host is not None and not host.startswith("/"):
        try:
            host.encode("idna")  # as ``getaddrinfo`` does
        except UnicodeError:
            raise ConfigurationError(
                "a host in the outbox's URL is no name: its parts must have 1 to 63 characters"
            ) from None


def _listed(url: URL, name: str) -> list[str]:
    return [part for part in ",".join(url.normalized_query.get(name, ())).split(",") if part]


def _split(host: str) -> tuple[str, int | None]:
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        return name, int(port.removeprefix(":")) if port else None
    if host.startswith("/") or host.count(":") != 1:
        return host, None
    name, _, port = host.partition(":")
    return name, int(port)


def _hosts(names: list[tuple[str | None, int | None]], given: dict[str, str]) -> Iterable[Host]:
    files = {name: value for name in _FILES if (value := given.get(name))}
    said = given.get("sslmode", given.get("ssl", os.environ.get("PGSSLMODE")))
    if said is not None:
        _require("sslmode", said, _MODES)
    for name, port in names:
        # Certificate files imply TLS. Beyond this machine somebody in between could pose as the server without it.
        mode = said or ("verify-full" if files or not _is_local(name) else "prefer")
        weak = mode in {"disable", "allow", "prefer"}
        if weak and files:
            raise ConfigurationError(f"{next(iter(files))} in the outbox's URL needs sslmode=require or more")
        yield Host(name, port, mode if weak else _context(mode, files))


def _is_local(host: str | None) -> bool:
    host = host or os.environ.get("PGHOST") or "localhost"
    return host.startswith("/") or is_loopback(host)


def _context(mode: str, files: dict[str, str]) -> ssl.SSLContext:
    root = files.get("sslrootcert") or os.environ.get("PGSSLROOTCERT") or _users_file("root.crt")
    certificate = files.get("sslcert") or os.environ.get("PGSSLCERT") or _users_file("postgresql.crt")
    key = files.get("sslkey") or os.environ.get("PGSSLKEY") or _users_file("postgresql.key")
    try:
        # libpq's word for the system's certificates, which are the default here.
        context = ssl.create_default_context(cafile=None if root in {None, "system"} else root)
    except OSError as error:
        raise _unreadable("sslrootcert", error) from None
    context.check_hostname = mode == "verify-full"
    if mode == "require" and root is None:
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        try:
            # A function, because OpenSSL would ask for a missing password at the terminal.
            context.load_cert_chain(certificate, key, password=lambda: files.get("sslpassword", ""))
        except OSError as error:
            raise _unreadable("sslcert or sslkey", error) from None
    return context


def _users_file(name: str) -> str | None:
    try:
        file = (_USERS_FILES / name).expanduser()
        return str(file) if file.exists() else None
    except (OSError, RuntimeError):  # no home, or one that this user cannot read
        return None


def _unreadable(name: str, error: OSError) -> ConfigurationError:
    reason = error.strerror or type(error).__name__
    return ConfigurationError(f"the file of {name} in the outbox's URL cannot be used: {reason}")


def _require(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name} of the outbox's URL must be one of {', '.join(choices)}")
