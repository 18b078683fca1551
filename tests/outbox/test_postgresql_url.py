"""URLs of PostgreSQL outboxes: accepted parameters, and errors that do not repeat the URL."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from printos_async import ConfigurationError, SqlOutbox
from printos_async.outbox.postgresql.url import ServerParameters

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = "p4ss-word-of-nobody"
USER = f"postgresql+asyncpg://user:{PASSWORD}@"


@pytest.fixture(autouse=True)
def no_settings_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGHOST", "PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"):
        monkeypatch.delenv(name, raising=False)


def server(rest: str) -> ServerParameters:
    return ServerParameters.of(make_url(USER + rest))


def mode(rest: str) -> str:
    [host] = server(rest).hosts
    if isinstance(host.tls, str):
        return host.tls
    if host.tls.check_hostname:
        return "verify-full"
    return "require" if host.tls.verify_mode is ssl.CERT_NONE else "verify-ca"


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("localhost/db", "prefer"),
        ("LOCALHOST/db", "prefer"),
        ("localhost./db", "prefer"),
        ("127.0.0.1/db", "prefer"),
        ("127.9.9.9:6432/db", "prefer"),
        ("[::1]/db", "prefer"),
        ("/db", "prefer"),
        ("/db?host=/run/postgresql", "prefer"),
        ("database/db", "verify-full"),
        ("localhost.example.org/db", "verify-full"),
        ("10.0.0.7/db", "verify-full"),
        ("[fe80::1]/db", "verify-full"),
        ("/db?host=database", "verify-full"),
        *((f"database/db?sslmode={word}", word) for word in ("disable", "prefer", "require", "verify-ca")),
        ("database/db?ssl=require", "require"),
        ("localhost/db?sslmode=verify-full", "verify-full"),
        ("localhost/db?sslrootcert=system", "verify-full"),
    ],
)
def test_tls_is_as_strict_as_the_way_is_long(rest: str, expected: str) -> None:
    assert mode(rest) == expected


def test_the_environment_counts_as_it_does_for_other_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "database")
    assert mode("/db") == "verify-full"
    monkeypatch.setenv("PGSSLMODE", "require")
    assert mode("/db") == "require"
    assert mode("/db?sslmode=prefer") == "prefer"


def test_several_hosts_are_tried_in_order_and_one_that_may_be_written_to_is_meant() -> None:
    for rest in (
        "/db?host=one:5433&host=two:5434",
        "/db?host=one,two&port=5433,5434",
        "/db?host=one&host=two&port=5433&port=5434",
    ):
        found = server(rest)
        assert [(host.name, host.port) for host in found.hosts] == [("one", 5433), ("two", 5434)]
        assert found.arguments["target_session_attrs"] == "read-write"
    found = server("/db?host=[::1]:7,two&target_session_attrs=any")
    assert [(host.name, host.port, host.tls == "prefer") for host in found.hosts] == [
        ("::1", 7, True),
        ("two", None, False),
    ]
    assert found.arguments["target_session_attrs"] == "any"


@pytest.mark.parametrize(
    ("rest", "named"),
    [
        ("h/db?sslmod=require", "sslmod"),
        (f"h/db?password={PASSWORD}", "password"),
        ("h/db?lock_timeout=3s&options=x", "lock_timeout, options"),
        ("h/db?sslmode=full", "sslmode"),
        ("h/db?ssl=true", "sslmode"),
        ("h/db?target_session_attrs=writable", "target_session_attrs"),
        ("h/db?prepared_statement_cache_size=none", "prepared_statement_cache_size"),
        ("h/db?sslrootcert=/no/such/file", "sslrootcert"),
        ("h/db?sslcert=/no/such/file", "sslcert"),
        ("h/db?sslmode=prefer&sslrootcert=system", "sslrootcert"),
        ("/db?host=one,two&port=1,2,3", "port"),
        ("/db?host=one:x", "port"),
        ("h/db?sslrootcert=%00", "NUL"),
        ("h:99999/db", "port"),
        ("h:0/db", "port"),
        ("h:-1/db", "port"),
        ("/db?host=one:1,two:65536", "port"),
        (f"{'a' * 64}/db", "host"),
        ("one..two/db", "host"),
    ],
)
def test_what_has_no_meaning_is_refused_and_named_without_the_url(rest: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        SqlOutbox(USER + rest)
    assert PASSWORD not in str(caught.value)
    assert "user:" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_no_password_is_shown() -> None:
    url = f"{USER}localhost/db?sslmode=require&sslpassword={PASSWORD}-too"
    assert PASSWORD not in repr(SqlOutbox(url))
    assert set(ServerParameters.of(make_url(url)).secrets) == {PASSWORD, f"{PASSWORD}-too"}
