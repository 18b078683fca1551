"""The tables, and the migrations from older versions."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateColumn
from sqlalchemy.sql.functions import FunctionElement

from printos_async._errors import OutboxCorruptError, OutboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


metadata = sa.MetaData()

# Compared byte by byte, as in SQLite and Python.
_Key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

# The prefix is for applications that share their database.
outbox = sa.Table(
    "printos_outbox",
    metadata,
    sa.Column("account", _Key, nullable=False),  # the tenant
    sa.Column("device_id", _Key, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),  # JSON in ASCII
    # Of device_id and body: reveals bytes that a disk has changed.
    sa.Column("crc", sa.BigInteger, nullable=False),
    sa.Column("put_at", sa.Double, nullable=False),
    sa.Column("due_at", sa.Double, nullable=False),  # not sent before; never earlier than uncertain_since
    sa.Column("attempts", sa.Integer, nullable=False),  # requests for the newest status, while it waits
    sa.Column("owner", sa.BigInteger),
    # End of the last uncertain write. It keeps its first name in the database, so that processes of an earlier version go
    # on reading it.
    sa.Column("doubt_since", sa.Double, key="uncertain_since"),
    # Delivered or given up; if it is below seq, seq waits.
    sa.Column("done_seq", sa.BigInteger, nullable=False),
    sa.Column("done_at", sa.Double),
    sa.Column("done_attempts", sa.Integer, nullable=False),
    sa.Column("error", sa.Text),  # why done_seq was given up
    # The owner, from when somebody else puts a status of its device until the owner has received it.
    sa.Column("unseen_by", sa.BigInteger),
    # When the first of the waiting statuses was put; null if the newest is the first.
    sa.Column("waiting_since", sa.Double),
    sa.PrimaryKeyConstraint("account", "device_id"),
    # With a rowid SQLite stores rows in the order of insertion. Beside a million waiting rows, a status then needs only
    # one page of its own, that of the key's index, which put and finish write and claim does not.
    sqlite_with_rowid=True,
)


def _index(name: str, *columns: sa.Column[Any], where: sa.ColumnElement[bool]) -> sa.Index:
    """Return an index of some rows only."""
    return sa.Index(name, *columns, sqlite_where=where, postgresql_where=where)


unowned_and_waiting = sa.and_(outbox.c.owner.is_(None), outbox.c.seq > outbox.c.done_seq)
_index("printos_outbox_claimable", outbox.c.account, outbox.c.due_at, where=unowned_and_waiting)
# Delivered, and deleted after its hold. A row with an uncertain write stays: the next status has to know of it.
idle = sa.and_(
    outbox.c.owner.is_(None),
    outbox.c.seq == outbox.c.done_seq,
    outbox.c.error.is_(None),
    outbox.c.uncertain_since.is_(None),
)
_index("printos_outbox_idle", outbox.c.account, outbox.c.due_at, where=idle)
_index("printos_outbox_failed", outbox.c.account, outbox.c.device_id, where=outbox.c.error.is_not(None))
# Holds new statuses alone, so that a worker finds them quickly, however many devices it owns.
unseen_index = _index(
    "printos_outbox_unseen",
    *(outbox.c.account, outbox.c.unseen_by, outbox.c.due_at),
    where=outbox.c.unseen_by.is_not(None),
)

worker = sa.Table(
    "printos_worker",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("account", _Key, nullable=False),
    sa.Column("lease_until", sa.Double, nullable=False),
    sa.Column("renewed_at", sa.Double),
)

# Who the tenants are, for people.
tenant = sa.Table(
    "printos_tenant",
    metadata,
    sa.Column("account", _Key, primary_key=True),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
)

# When each device was delivered last. Rows of ``printos_outbox`` do not tell: those of delivered devices are deleted.
delivery = sa.Table(
    "printos_delivery",
    metadata,
    sa.Column("account", _Key, nullable=False),
    sa.Column("device_id", _Key, nullable=False),
    sa.Column("delivered_at", sa.Double, nullable=False),
    sa.PrimaryKeyConstraint("account", "device_id"),
    # Batches are written in the order of the key: neighbours share pages.
    sqlite_with_rowid=False,
)

meta = sa.Table(
    "printos_meta",
    metadata,
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("floor", sa.BigInteger, nullable=False),  # sequence numbers of deleted rows are not above it
    # SQLite only: the file's time is the time since this boot plus the offset.
    sa.Column("clock_boot", sa.Text),
    sa.Column("clock_offset_s", sa.Double),
)


@sa.event.listens_for(outbox, "after_create")
@sa.event.listens_for(delivery, "after_create")
def _leave_space(table: sa.Table, connection: sa.Connection, **_: object) -> None:
    # Each status writes its row three times, and the row of its delivery once. With free space in the page the new version
    # stays there (HOT). A statement of its own, because a table of SQLAlchemy 2.0 has no option for it.
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"ALTER TABLE {table.name} SET (fillfactor = 50)")


# SQL function that each connection to a SQLite file registers: see ``FileTime``.
TIME_FUNCTION = "printos_time"
_POSTGRESQL_CLOCK = "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


class DatabaseTime(FunctionElement[float]):
    """Seconds since 1970 by the database's clock, the same throughout a statement."""

    type = sa.Double()
    inherit_cache = True
    name = "database_time"


class RowTime(DatabaseTime):
    """As ``DatabaseTime``, but PostgreSQL reads the clock for each row, and again if it had to wait for the row's lock."""

    inherit_cache = True


@compiles(DatabaseTime, "sqlite")
def _sqlite_time(*_: Any, **__: Any) -> str:
    return f"{TIME_FUNCTION}()"


@compiles(DatabaseTime, "postgresql")
def _postgresql_time(*_: Any, **__: Any) -> str:
    # A subquery is evaluated once, so that an index can be used.
    return f"(SELECT {_POSTGRESQL_CLOCK})"


@compiles(RowTime, "postgresql")
def _postgresql_row_time(*_: Any, **__: Any) -> str:
    return _POSTGRESQL_CLOCK


def _to_version_2(connection: sa.Connection) -> None:
    # Adds the mark of newer statuses, the time of the oldest waiting one, and the clock of a file.
    columns = (outbox.c.unseen_by, outbox.c.waiting_since)
    for column in (*columns, worker.c.renewed_at, meta.c.clock_boot, meta.c.clock_offset_s):
        definition = CreateColumn(column).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {column.table.name} ADD COLUMN {definition}")
    unseen_index.create(connection)


def _to_version_3(connection: sa.Connection) -> None:
    # Adds the tenants. Of those that are there already nobody knows the label before they are opened again.
    tenant.create(connection)
    there = sa.union(sa.select(outbox.c.account), sa.select(worker.c.account)).subquery()
    rows = sa.select(there.c.account, sa.literal("", sa.Text), sa.literal("", sa.Text))
    connection.execute(sa.insert(tenant).from_select(["account", "label", "host"], rows))


def _to_version_4(connection: sa.Connection) -> None:
    # Adds the last deliveries. Of devices whose row was deleted nobody knows the time.
    delivery.create(connection)
    row = outbox.c
    known = sa.select(row.account, row.device_id, row.done_at).where(
        row.done_at.is_not(None), row.error.is_(None)
    )
    connection.execute(sa.insert(delivery).from_select(["account", "device_id", "delivered_at"], known))


# The step at index N migrates from version N + 1 to N + 2.
MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (_to_version_2, _to_version_3, _to_version_4)

# Any number, but the same in all versions of this package.
_LOCK_KEY = 7_205_731_104


def is_current(connection: sa.Connection) -> bool:
    """Return whether the tables exist in this version, without locking anything.

    Raises:
        OutboxError: A newer version of this package has created the tables.
    """
    newest = len(MIGRATIONS) + 1
    return _version(connection, newest=newest) == newest


def prepare(
    connection: sa.Connection, migrations: Sequence[Callable[[sa.Connection], None]] = MIGRATIONS
) -> None:
    """Create or migrate the tables if necessary. Several processes may do so at once.

    Raises:
        OutboxError: A newer version of this package has created the tables.
    """
    version = len(migrations) + 1
    with transaction(connection):
        if connection.dialect.name != "sqlite":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")
        found = _version(connection, newest=version)
        if found == 0:
            metadata.create_all(connection, checkfirst=False)
            connection.execute(sa.insert(meta).values(version=version, floor=0))
        elif found < version:
            for step in migrations[found - 1 :]:
                step(connection)
            connection.execute(sa.update(meta).values(version=version))


@contextlib.contextmanager
def transaction(connection: sa.Connection) -> Iterator[None]:
    """Run the statements of a block in one transaction of a connection that is in autocommit mode."""
    # SQLite refuses a write lock to a transaction that has read before another one wrote: so the lock comes first.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.dialect.name == "sqlite" else "BEGIN")
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        # SQLite has rolled back itself if the disk is full or fails, and PostgreSQL if the connection is lost.
        with contextlib.suppress(SQLAlchemyError):
            if not connection.invalidated:
                connection.exec_driver_sql("ROLLBACK")
        raise


def _version(connection: sa.Connection, *, newest: int) -> int:
    """Return the version of the tables, 0 if there are none."""
    if not sa.inspect(connection).has_table(meta.name):
        return 0
    found = connection.execute(sa.select(meta.c.version)).scalar_one()
    if not isinstance(found, int) or found < 1:
        raise OutboxCorruptError("the outbox's file is damaged (version)")
    if found > newest:
        raise OutboxError(
            f"the outbox was made by a newer printos-async (its schema has version {found}, and this release"
            f" knows {newest}): upgrade printos-async"
        )
    return int(found)
