"""A PgBouncer in front of a PostgreSQL server of the tests, where one is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
READY = "process up"
# As an administrator leaves it who has read no more than the first page: nothing is ignored or tracked.
SETTINGS = """\
[databases]
{database} = host={host} port={port} dbname={database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 100
"""


def program() -> str | None:
    """Return the path of PgBouncer, None where it is not installed."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


@contextmanager
def bounced(url: str, *, mode: str, size: int, context: dict[str, Any]) -> Iterator[str]:
    """Start a pool in front of a database, and give the URL that leads through it.

    Args:
        url: Of the database.
        mode: ``session`` or ``transaction``.
        size: Sessions of the server that the clients share.
        context: Keyword arguments of ``subprocess.Popen``, for it does not run as root either.
    """
    parsed = make_url(url)
    found = program()
    assert found is not None
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="printos-pgbouncer-", dir=context["cwd"]))
    try:
        folder.chmod(0o755)
        users, settings = folder / "users", folder / "settings.ini"
        users.write_text(f'"{parsed.username}" "{parsed.password}"\n')
        settings.write_text(
            SETTINGS.format(
                database=parsed.database,
                host=parsed.host,
                port=parsed.port,
                own_port=port,
                users=users,
                mode=mode,
                size=size,
            )
        )
        with subprocess.Popen([found, settings], stderr=subprocess.PIPE, text=True, **context) as process:
            assert process.stderr is not None
            try:
                while READY not in (line := process.stderr.readline()):
                    assert line, "PgBouncer did not start"
                yield parsed.set(port=port).render_as_string(hide_password=False)
            finally:
                process.terminate()
                process.communicate()
    finally:
        shutil.rmtree(folder)
