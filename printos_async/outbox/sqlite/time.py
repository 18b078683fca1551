"""The time of a SQLite outbox, which does not depend on changes of the machine's wall clock.

It is the time since boot plus an offset, which the file stores with the identity of the boot, so that all processes
that use the file have the same time. The first one that opens it after a restart chooses a new offset by the wall
clock, but such that time does not go back. Without a clock of the boot the time is the wall clock's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from printos_async.outbox.sql.tables import TIME_FUNCTION

if TYPE_CHECKING:
    import sqlite3

    from printos_async._common.clock import MachineClock

# Later times were not written by this package.
_LATEST_S = 1e10

_READ = "SELECT clock_boot, clock_offset_s FROM printos_meta"
_WRITE = "UPDATE printos_meta SET clock_boot = ?, clock_offset_s = ?"
_LATEST = """
    SELECT max(at) FROM (
        SELECT max(put_at) AS at FROM printos_outbox WHERE put_at BETWEEN 0 AND :limit
        UNION ALL SELECT max(done_at) FROM printos_outbox WHERE done_at BETWEEN 0 AND :limit
        UNION ALL SELECT max(renewed_at) FROM printos_worker WHERE renewed_at BETWEEN 0 AND :limit
    )
"""
# No process of the earlier boot is alive, and the wall clock may be wrong about how long ago that was. So writes of
# that time count as uncertain from now on.
_AFTER_RESTART = (
    "UPDATE printos_worker SET lease_until = :now",
    "UPDATE printos_outbox SET doubt_since = :now, due_at = max(due_at, :now) WHERE doubt_since IS NOT NULL",
)


class FileTime:
    """The clock of one file, as an SQL function of its connections."""

    def __init__(self, clock: MachineClock) -> None:
        self._clock = clock
        self._offset_s: float | None = None
        self._now_s: float | None = None

    def register(self, connection: sqlite3.Connection) -> None:
        """Register the SQL function in a connection."""
        # Deterministic in SQLite's sense: it may use one result for all rows of a statement.
        connection.create_function(TIME_FUNCTION, 0, self._statement_time_s, deterministic=True)

    def begin_statement(self) -> None:
        """Discard the time of the last statement. It is read again when the next one has its lock."""
        self._now_s = None

    def _statement_time_s(self) -> float:
        # SQLite calls it once for each place in which the statement names the function.
        if self._now_s is None:
            if self._offset_s is None:
                self._now_s = self._clock.wall_s()
            else:
                self._now_s = self._clock.since_boot_s() + self._offset_s
        return self._now_s

    def adopt(self, connection: sqlite3.Connection) -> None:
        """Use the file's offset; choose one if the file was not opened since the machine was booted."""
        if self._clock.boot_id is None:
            return
        offset_s, _ = self._stored(connection)
        if offset_s is None:
            with connection:  # ends the transaction
                connection.execute("BEGIN IMMEDIATE")
                offset_s, is_restart = self._stored(connection)
                if offset_s is None:
                    offset_s = self._choose(connection, is_restart=is_restart)
        self._offset_s = offset_s

    def _stored(self, connection: sqlite3.Connection) -> tuple[float | None, bool]:
        """Return the offset, None if it is not of this boot, and whether there is one of another boot."""
        boot, offset_s = connection.execute(_READ).fetchone()
        if boot == self._clock.boot_id and isinstance(offset_s, float) and abs(offset_s) < _LATEST_S:
            return offset_s, False
        return None, boot is not None

    def _choose(self, connection: sqlite3.Connection, *, is_restart: bool) -> float:
        latest_s: Any = connection.execute(_LATEST, {"limit": _LATEST_S}).fetchone()[0]
        now_s = max(self._clock.wall_s(), latest_s or 0.0)
        offset_s = now_s - self._clock.since_boot_s()
        connection.execute(_WRITE, (self._clock.boot_id, offset_s))
        if is_restart:
            for statement in _AFTER_RESTART:
                connection.execute(statement, {"now": now_s})
        return offset_s
