"""A shard's rows on their way into another database of the same schema: by COPY, over whatever protects a connection.

Shard roles can't delete, so whatever a practice changed after a moment is still there and bears a younger xmin: the
whole goes over while everybody works, and what was changed meanwhile follows, again and again, until little is left.
"""

import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

import psycopg2
import psycopg2.extensions
from psycopg2 import sql

from tenant_service.server_admin import KEEPALIVE_OPTIONS, Access

Session = psycopg2.extensions.connection

_OPTIONS = (
    "-c statement_timeout=1h -c lock_timeout=5s -c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=postgres"
    f" -c extra_float_digits=1 -c bytea_output=hex {KEEPALIVE_OPTIONS}"
)
"""Every value is written alike everywhere: rows are compared by their text."""
_CANCELED = "57014"
_TABLES = """
SELECT c.relname,
  array_agg(a.attname::text ORDER BY a.attnum),
  coalesce((SELECT array_agg(k.attname::text ORDER BY k.attnum) FROM pg_index i
    JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = ANY (i.indkey)
    WHERE i.indrelid = c.oid AND i.indisprimary), '{}')
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> 'alembic_version'
GROUP BY c.oid, c.relname ORDER BY c.relname
"""


class Table(NamedTuple):
    """A table of a shard: its columns, and those of its primary key."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    @property
    def identifier(self) -> sql.Identifier:
        """As it is written in a statement."""
        return sql.Identifier("public", self.name)

    @property
    def column_list(self) -> sql.Composed:
        """`a, b, c`."""
        return sql.SQL(", ").join(map(sql.Identifier, self.columns))


class DifferentRowsError(Exception):
    """Two databases that should hold the same rows don't."""

    def __init__(self) -> None:
        super().__init__("Both places don't hold the same rows.")


class Digest(NamedTuple):
    """What tells whether two databases hold the same rows: how many, and the sum of their hashes."""

    rows: int
    checksum: str


def connect(access: Access, database: str) -> Session:
    """A session in which rows are written alike, whatever the server. Raises psycopg2.Error."""
    return access.connect(database, options=_OPTIONS)


def tables(session: Session) -> list[Table]:
    """The tables that hold a practice's data, by name."""
    with session.cursor() as cursor:
        cursor.execute(_TABLES)
        found = [Table(name, tuple(columns), tuple(key)) for name, columns, key in cursor.fetchall()]
    without_key = [table.name for table in found if not table.key]
    assert not without_key, f"no primary key: {without_key}"
    return found


def digests(session: Session) -> dict[str, Digest]:
    """Of each table, in the order of names. The order of rows doesn't matter."""
    return {table.name: _digest(session, table, sql.SQL("{} t").format(table.identifier)) for table in tables(session)}


def counts(session: Session) -> dict[str, int]:
    """How many rows each table has: of what `digests` tells the part that is quick."""
    found = {}
    for table in tables(session):
        with session.cursor() as cursor:
            cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(table.identifier))
            ((found[table.name],),) = cursor.fetchall()
    return found


def _digest(session: Session, table: Table, rows: sql.Composed) -> Digest:
    """Of these rows, which are called `t`."""
    columns = sql.SQL(", ").join(sql.Identifier("t", column) for column in table.columns)
    with session.cursor() as cursor:
        cursor.execute(
            sql.SQL(
                "SELECT count(*), coalesce(sum(('x' || left(md5(ROW({})::text), 16))::bit(64)::bigint::numeric), 0)"
                "::text FROM {}"
            ).format(columns, rows)
        )
        ((count, checksum),) = cursor.fetchall()
    return Digest(count, checksum)


def begin_snapshot(session: Session) -> str:
    """Fixes what the session sees until its transaction ends; the oldest transaction that it may not see."""
    session.rollback()
    session.set_session(isolation_level="REPEATABLE READ", readonly=True)
    with session.cursor() as cursor:
        cursor.execute("SELECT (pg_snapshot_xmin(pg_current_snapshot())::text::numeric % 4294967296)::text")
        ((horizon,),) = cursor.fetchall()
    return str(horizon)


def copy_all(source: Session, target: Session) -> None:
    """Every row of the source's snapshot into a target that is empty; commits there."""
    for table in tables(source):
        _stream(source, _reading(table), target, _writing(table, table.identifier))
    target.commit()


def copy_younger(source: Session, target: Session, horizon: str, *, proved: bool = False) -> int:
    """What transactions from this one on wrote, in place of what the target has; commits there. How many rows.

    With `proved` these rows are compared afterwards, on both sides. Raises DifferentRowsError.
    """
    count = 0
    for table in tables(source):
        staged = sql.Identifier(f"younger_{table.name}")
        with target.cursor() as cursor:
            cursor.execute(sql.SQL("CREATE TEMP TABLE {} (LIKE {})").format(staged, table.identifier))
            _stream(source, _reading(table, horizon), target, _writing(table, staged))
            cursor.execute(_taking_over(table, staged))
            count += cursor.rowcount
            if proved:
                _compare_younger(source, target, table, staged, horizon)
            cursor.execute(sql.SQL("DROP TABLE {}").format(staged))
    target.commit()
    return count


def _compare_younger(source: Session, target: Session, table: Table, staged: sql.Identifier, horizon: str) -> None:
    here = sql.SQL("{} t WHERE {}").format(table.identifier, _is_younger(horizon, of="t"))
    key = sql.SQL(", ").join(map(sql.Identifier, table.key))
    there = sql.SQL("{} t JOIN {} s USING ({})").format(table.identifier, staged, key)
    if _digest(source, table, here) != _digest(target, table, there):
        raise DifferentRowsError


def _is_younger(horizon: str, *, of: str) -> sql.Composed:
    """Xids are compared by their age, since they wrap around."""
    return sql.SQL("age({}) <= age({}::xid)").format(sql.Identifier(of, "xmin"), sql.Literal(horizon))


def dump(source: Session, table: Table, file: IO[bytes] | io.RawIOBase) -> None:
    """A table's rows in COPY's text format."""
    with source.cursor() as cursor:
        cursor.copy_expert(_reading(table).as_string(source), file)


def load(target: Session, table: Table, file: IO[bytes] | io.BufferedReader) -> None:
    """Such rows into an empty table."""
    with target.cursor() as cursor:
        cursor.copy_expert(_writing(table, table.identifier).as_string(target), file)


def _reading(table: Table, horizon: str | None = None) -> sql.Composed:
    query = sql.SQL("SELECT {} FROM {} t").format(table.column_list, table.identifier)
    if horizon is not None:
        query += sql.SQL(" WHERE {}").format(_is_younger(horizon, of="t"))
    return sql.SQL("COPY ({}) TO STDOUT").format(query)


def _writing(table: Table, into: sql.Identifier) -> sql.Composed:
    return sql.SQL("COPY {} ({}) FROM STDIN").format(into, table.column_list)


def _taking_over(table: Table, staged: sql.Identifier) -> sql.Composed:
    others = [column for column in table.columns if column not in table.key]
    changes = sql.SQL(", ").join(sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(column)) for column in others)
    return sql.SQL("INSERT INTO {0} ({1}) SELECT {1} FROM {2} ON CONFLICT ({3}) DO {4}").format(
        table.identifier,
        table.column_list,
        staged,
        sql.SQL(", ").join(map(sql.Identifier, table.key)),
        sql.SQL("UPDATE SET {}").format(changes) if others else sql.SQL("NOTHING"),
    )


def _stream(source: Session, reading: sql.Composed, target: Session, writing: sql.Composed) -> None:
    """Lets one server's COPY feed the other's; raises the first fault of both."""
    with (
        source.cursor() as cursor,
        piped(lambda end: cursor.copy_expert(reading.as_string(source), end)) as received,
        target.cursor() as taking,
    ):
        taking.copy_expert(writing.as_string(target), received)


@contextlib.contextmanager
def piped(write: Callable[[IO[bytes]], object]) -> Iterator[IO[bytes]]:
    """What `write` writes, in a thread of its own, can be read here meanwhile. Its fault is raised at the end."""
    reading, writing = os.pipe()
    faults: list[BaseException] = []

    def work() -> None:
        try:
            with os.fdopen(writing, "wb") as end:
                write(end)
        except BaseException as fault:  # noqa: BLE001 - it is raised in the other thread
            faults.append(fault)

    thread = threading.Thread(target=work, name="copying")
    thread.start()
    try:
        with os.fdopen(reading, "rb") as end:
            yield end
    except BaseException as fault:
        thread.join()
        # a reader that gave up breaks the writer's pipe, which is no fault of the writer's; a COPY that was
        # cancelled gave up because of what it read
        own = isinstance(fault, psycopg2.Error) and fault.pgcode not in {None, _CANCELED}
        if faults and not isinstance(faults[0], BrokenPipeError) and not own:
            raise faults[0] from fault
        raise
    thread.join()
    if faults:
        raise faults[0]


def analyze(access: Access, database: str) -> None:
    """Lets PostgreSQL count what was just filled in, as a shard that has grown has it."""
    with contextlib.closing(connect(access, database)) as session:
        session.autocommit = True
        with session.cursor() as cursor:
            cursor.execute("VACUUM (ANALYZE)")
