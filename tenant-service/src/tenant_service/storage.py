"""All SQL on the central database. Takes a connection, never commits; knows no HTTP and no other database."""

import uuid
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, RowMapping, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.changes import SHARD_QUARANTINED, SHARD_RELEASED
from shared.shards import ShardName
from tenant_service.central import Lock
from tenant_service.schema import changes, fleet, servers, shards

CHANGES_MATTER_S = 3600
"""Nobody trusts what the directory said for longer than 15 min; four times that is young enough to matter."""
CHANGES_KEPT_S = 24 * 3600


class ShardState(StrEnum):
    """The states of a directory row. `creating` → `ready`; both → `undone`; `quarantined` is left to people."""

    CREATING = "creating"
    READY = "ready"
    QUARANTINED = "quarantined"
    UNDONE = "undone"


class ServerState(StrEnum):
    """Whether a shard server takes new practices."""

    OPEN = "open"
    FULL = "full"
    DRAINING = "draining"


class Shard(NamedTuple):
    """A directory row. Server and database are None for an undone sign-up whose database is gone."""

    practice_id: uuid.UUID
    server: str | None
    database: str | None
    state: ShardState

    @property
    def name(self) -> ShardName:
        """Its place. Only a shard that isn't undone is sure to have one."""
        assert self.server
        assert self.database
        return ShardName(self.server, self.database)


class Server(NamedTuple):
    """A shard server; `capacity` and `practices` in practices."""

    key: str
    host: str
    port: int
    sslmode: str
    sslrootcert: str | None
    state: ServerState
    capacity: int
    max_connections: int
    practices: int


class Changes(NamedTuple):
    """Changes in the order of their commits. `reset`: the asker knows of later ones than there are."""

    rows: Sequence[RowMapping]
    last: int
    reset: bool


_SHARD = (shards.c.practice_id, shards.c.server, shards.c.database, shards.c.state)


def _shard(row: Row[*tuple[Any, ...]]) -> Shard:
    return Shard(row.practice_id, row.server, row.database, ShardState(row.state))


def fleet_id(connection: Connection) -> uuid.UUID:
    """What this directory stamps on its shards."""
    found: uuid.UUID = connection.execute(select(fleet.c.id)).scalar_one()
    return found


def find_shard(connection: Connection, practice_id: uuid.UUID) -> Shard | None:
    """The practice's row."""
    row = connection.execute(select(*_SHARD).where(shards.c.practice_id == practice_id)).one_or_none()
    return _shard(row) if row else None


def insert_shard(
    connection: Connection, practice_id: uuid.UUID, *, place: ShardName, state: ShardState, revision: str | None = None
) -> None:
    """Adds a row unless the practice has one."""
    statement = insert(shards).values(
        practice_id=practice_id, server=place.server, database=place.database, state=state, revision=revision
    )
    connection.execute(statement.on_conflict_do_nothing(index_elements=["practice_id"]))


def mark_ready(connection: Connection, practice_id: uuid.UUID) -> bool:
    """`creating` → `ready`, or still `ready`; false when it was undone meanwhile."""
    allowed = (ShardState.CREATING, ShardState.READY)
    return _set_state(connection, practice_id, ShardState.READY, allowed_from=allowed)


def mark_undone(connection: Connection, practice_id: uuid.UUID) -> Shard:
    """`creating` or `ready` → `undone`; an unknown practice gets a tombstone. The row as it is then."""
    tombstone = insert(shards).values(practice_id=practice_id, state=ShardState.UNDONE)
    fresh = connection.execute(tombstone.on_conflict_do_nothing(index_elements=["practice_id"])).rowcount == 1
    allowed = (ShardState.CREATING, ShardState.READY)
    if not fresh and _set_state(connection, practice_id, ShardState.UNDONE, allowed_from=allowed):
        record_change(connection, practice_id, SHARD_RELEASED)
    shard = find_shard(connection, practice_id)
    assert shard
    return shard


def mark_quarantined(connection: Connection, practice_id: uuid.UUID) -> None:
    """`undone` → `quarantined`: its database turned out to hold rows."""
    if _set_state(connection, practice_id, ShardState.QUARANTINED, allowed_from=(ShardState.UNDONE,)):
        record_change(connection, practice_id, SHARD_QUARANTINED)


def _set_state(
    connection: Connection, practice_id: uuid.UUID, state: ShardState, *, allowed_from: Sequence[ShardState]
) -> bool:
    statement = (
        update(shards)
        .where(shards.c.practice_id == practice_id, shards.c.state.in_(allowed_from))
        .values(state=state, updated_at=func.now())
    )
    return connection.execute(statement).rowcount == 1


def forget_place(connection: Connection, practice_id: uuid.UUID) -> None:
    """The database of an undone sign-up is gone."""
    connection.execute(
        update(shards)
        .where(shards.c.practice_id == practice_id, shards.c.state == ShardState.UNDONE)
        .values(server=None, database=None, updated_at=func.now())
    )


def unfinished_releases(connection: Connection, *, limit: int = 100) -> list[Shard]:
    """Undone sign-ups whose database may still be there."""
    query = select(*_SHARD).where(shards.c.state == ShardState.UNDONE, shards.c.database.is_not(None))
    return [_shard(row) for row in connection.execute(query.order_by(shards.c.updated_at).limit(limit))]


def owned_among(connection: Connection, databases: Collection[str]) -> set[str]:
    """Those of the databases that have an owner, on whatever server: a server may be known by two keys."""
    query = select(shards.c.database).where(shards.c.database.in_(databases), shards.c.state != ShardState.QUARANTINED)
    return set(connection.scalars(query)) if databases else set()


def ready_on(connection: Connection, server: str) -> set[str]:
    """The databases that practices work in on a server."""
    query = select(shards.c.database).where(shards.c.server == server, shards.c.state == ShardState.READY)
    return set(connection.scalars(query))


def page_of_shards(
    connection: Connection, *, state: ShardState | None, after: uuid.UUID | None, limit: int
) -> list[Shard]:
    """Rows in the order of practice ids."""
    query = select(*_SHARD).order_by(shards.c.practice_id).limit(limit)
    if state is not None:
        query = query.where(shards.c.state == state)
    if after is not None:
        query = query.where(shards.c.practice_id > after)
    return [_shard(row) for row in connection.execute(query)]


def list_servers(connection: Connection) -> list[Server]:
    """All servers with the number of practices on each."""
    placed = select(shards.c.server, func.count().label("practices")).group_by(shards.c.server).subquery()
    query = (
        select(
            servers.c.key,
            servers.c.host,
            servers.c.port,
            servers.c.sslmode,
            servers.c.sslrootcert,
            servers.c.state,
            servers.c.capacity,
            servers.c.max_connections,
            func.coalesce(placed.c.practices, 0),
        )
        .outerjoin_from(servers, placed, servers.c.key == placed.c.server)
        .order_by(servers.c.key)
    )
    return [Server(*row[:5], ServerState(row[5]), *row[6:]) for row in connection.execute(query)]


def upsert_server(
    connection: Connection, key: str, *, host: str, port: int, sslmode: str, sslrootcert: str | None
) -> None:
    """Makes a server known, or tells where it is now."""
    where = {"host": host, "port": port, "sslmode": sslmode, "sslrootcert": sslrootcert}
    statement = insert(servers).values(key=key, **where)
    connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_=where))


def note_max_connections(connection: Connection, key: str, max_connections: int) -> None:
    """What the server says of itself."""
    connection.execute(
        update(servers)
        .where(servers.c.key == key, servers.c.max_connections != max_connections)
        .values(max_connections=max_connections)
    )


def record_change(connection: Connection, practice_id: uuid.UUID, kind: str) -> None:
    """Tells the gateways. The lock makes the order of numbers the order of commits, so that no poll misses one."""
    connection.execute(select(func.pg_advisory_xact_lock(Lock.CHANGES, 0)))
    connection.execute(insert(changes).values(kind=kind, practice_id=practice_id))


def changes_after(connection: Connection, after: int | None, *, limit: int) -> Changes:
    """Changes behind `after`; all that still matter without it, or when the database is older than the asker."""
    last = connection.execute(select(func.coalesce(func.max(changes.c.seq), 0))).scalar_one()
    reset = after is not None and after > last
    query = select(changes.c.seq, changes.c.kind, changes.c.practice_id).order_by(changes.c.seq).limit(limit)
    if after is None or reset:
        query = query.where(changes.c.at > func.now() - func.make_interval(0, 0, 0, 0, 0, 0, CHANGES_MATTER_S))
    else:
        query = query.where(changes.c.seq > after)
    rows = connection.execute(query.where(changes.c.seq <= last)).mappings().all()
    return Changes(rows, rows[-1]["seq"] if len(rows) == limit else last, reset)


def prune_changes(connection: Connection) -> None:
    """Deletes what is too old to matter, except the newest: its number must stay known."""
    newest = select(func.max(changes.c.seq)).scalar_subquery()
    too_old = changes.c.at < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, CHANGES_KEPT_S)
    connection.execute(delete(changes).where(too_old, changes.c.seq < newest))


def count_states(connection: Connection) -> dict[ShardState, int]:
    """Directory rows by state."""
    counted = func.count()
    rows = connection.execute(select(shards.c.state, counted).group_by(shards.c.state))
    return {ShardState(row[0]): row[1] for row in rows}
