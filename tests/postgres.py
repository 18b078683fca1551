"""A PostgreSQL server of the tests' own: real, durable, on loopback, gone at the end."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import subprocess
import threading
from collections import deque
from typing import TYPE_CHECKING, Self

import asyncpg

from .postgres_cluster import USER, Cluster
from .processes import kill_family

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOST = "127.0.0.1"
READY = "database system is ready to accept connections"
PORTS_TRIED = 5
STOP_TIMEOUT_S = 20.0


class PostgresServer:
    """A server with a data directory, from ``initdb`` to removal; use as a context manager.

    Attributes:
        port: Where it listens, on the loopback interface alone. The same after a restart.
        password: Of the superuser ``postgres``; new for each server.
    """

    def __init__(self) -> None:
        self._cluster = Cluster.create()
        self.password = self._cluster.password
        self.port = 0
        self._log: deque[str] = deque(maxlen=200)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def url(self, database: str = "postgres", *, scheme: str = "postgresql+asyncpg") -> str:
        """Return the URL of a database, with the password."""
        return f"{scheme}://{USER}:{self.password}@{HOST}:{self.port}/{database}"

    def start(self) -> None:
        """Start on the data as they are, and return when connections are accepted; a running server stays."""
        if self.is_running:
            return
        for _ in range(PORTS_TRIED):
            # Someone may take a free port before the server does. Once it had one, it keeps it.
            port = self.port or _free_port()
            if self._launch(port):
                self.port = port
                return
            if self.port or not any("could not bind" in line for line in self._log):
                break
        raise RuntimeError("PostgreSQL did not start:\n" + "".join(self._log))

    def stop(self) -> None:
        """Shut down as an administrator would: open transactions are rolled back, everything is on disk."""
        if self._process is None:
            return
        if self.is_running:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
                return
        self._ended()

    def kill(self) -> None:
        """Kill the server and all processes of it with SIGKILL, as a crash does; ``start`` recovers the data."""
        if self._process is None:
            return
        if self.is_running:
            kill_family(self._process.pid)
            self._process.wait()
        self._ended()

    def close(self) -> None:
        """Stop the server and remove its files."""
        try:
            if self._process is None and self.port:
                self.start()  # after a kill: a clean stop gives back the shared memory that a crash leaves
            self.stop()
        finally:
            self.kill()
            self._cluster.remove()

    @contextlib.asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """Return the URL of a new database, which is dropped at the end, whoever is still connected."""
        self.start()
        name = f"test_{secrets.token_hex(8)}"
        await self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            self.start()  # the test may have killed it
            await self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def execute(self, statement: str) -> None:
        """Run a statement as the superuser, in the database ``postgres``."""
        connection = await asyncpg.connect(self.url(scheme="postgresql"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _launch(self, port: int) -> bool:
        self._log.clear()
        settings = {
            "listen_addresses": HOST,
            "port": str(port),
            # No socket in a folder that everybody shares, and no shared memory that outlives a crash.
            "unix_socket_directories": "",
            "dynamic_shared_memory_type": "mmap",
            "fsync": "on",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [self._cluster.bin / "postgres", "-D", self._cluster.data, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # Ctrl-C in the terminal is for the tests, which stop the server themselves.
            start_new_session=True,
            **self._cluster.context,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.append(line)
            if READY in line:
                # Whoever writes a log has to have it read, or waits forever once the pipe is full.
                self._reader = threading.Thread(target=self._log.extend, args=(self._process.stderr,))
                self._reader.start()
                return True
        self._process.wait()
        self._ended()
        return False

    def _ended(self) -> None:
        if self._reader is not None:
            self._reader.join()
        if self._process is not None and self._process.stderr is not None:
            self._process.stderr.close()
        self._process = self._reader = None


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
