"""Which shard belongs to which practice, and in what state it is."""

import uuid
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Uuid, bindparam, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.changes import SHARD_FENCED, SHARD_MOVED, SHARD_QUARANTINED, SHARD_RELEASED, SHARD_UNFENCED
from shared.shards import ShardName
from tenant_service.schema import fleet, shards
from tenant_service.storage.changes import record_change


class ShardState(StrEnum):
    """The states of a directory row. `creating` → `ready`; both → `undone`; `quarantined` is left to people."""

    CREATING = "creating"
    READY = "ready"
    QUARANTINED = "quarantined"
    UNDONE = "undone"


class Fence(StrEnum):
    """Why nobody may use a shard now. Whoever sets a fence lifts it: migrations the first two, a move its own."""

    DRIFTED = "drifted"
    BEHIND = "behind"
    MOVING = "moving"

    @property
    def family(self) -> tuple["Fence", ...]:
        """Those that the same deed sets and lifts."""
        return (Fence.MOVING,) if self is Fence.MOVING else (Fence.DRIFTED, Fence.BEHIND)


class Shard(NamedTuple):
    """A directory row. Server and database are None for an undone sign-up whose database is gone.

    `revision` is how far the shard was when somebody last looked; `fence` is why nobody may use it now.
    """

    practice_id: uuid.UUID
    server: str | None
    database: str | None
    state: ShardState
    revision: str | None = None
    fence: str | None = None

    @property
    def name(self) -> ShardName:
        """Its place. Only a shard that isn't undone is sure to have one."""
        assert self.server
        assert self.database
        return ShardName(self.server, self.database)


_SHARD = tuple(shards.c[name] for name in Shard._fields)
_FLEET_ID_AND_SHARD = select(fleet.c.id, *_SHARD).select_from(
    fleet.outerjoin(shards, shards.c.practice_id == bindparam("practice", type_=Uuid))
)


def _shard(row: Row[*tuple[Any, ...]]) -> Shard:
    return Shard(*(getattr(row, name) for name in Shard._fields))._replace(state=ShardState(row.state))


def fleet_id(connection: Connection) -> uuid.UUID:
    """What this directory stamps on its shards."""
    found: uuid.UUID = connection.execute(select(fleet.c.id)).scalar_one()
    return found


def fleet_id_and_shard(connection: Connection, practice_id: uuid.UUID) -> tuple[uuid.UUID, Shard | None]:
    """Both at once, as every sign-up asks for both."""
    row = connection.execute(_FLEET_ID_AND_SHARD, {"practice": practice_id}).one()
    return row.id, _shard(row) if row.practice_id else None


def find_shard(connection: Connection, practice_id: uuid.UUID, *, kept: bool = False) -> Shard | None:
    """The practice's row; `kept`: nobody changes it until this transaction ends."""
    query = select(*_SHARD).where(shards.c.practice_id == practice_id)
    row = connection.execute(query.with_for_update(read=True) if kept else query).one_or_none()
    return _shard(row) if row else None


def insert_shard(
    connection: Connection, practice_id: uuid.UUID, *, place: ShardName, state: ShardState, revision: str | None = None
) -> None:
    """Adds a row unless the practice has one."""
    statement = insert(shards).values(
        practice_id=practice_id, server=place.server, database=place.database, state=state, revision=revision
    )
    connection.execute(statement.on_conflict_do_nothing(index_elements=["practice_id"]))


def replace_database(connection: Connection, practice_id: uuid.UUID, former: str, *, by: str) -> None:
    """Gives a shard that is `creating` another name, since the former one turned out to be somebody else's."""
    creating = (shards.c.practice_id == practice_id) & (shards.c.state == ShardState.CREATING)
    statement = update(shards).where(creating, shards.c.database == former)
    connection.execute(statement.values(database=by, updated_at=func.now()))


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


def is_known(connection: Connection, database: str) -> bool:
    """Whether any row names the database, in whatever state."""
    return connection.scalar(select(shards.c.practice_id).where(shards.c.database == database)) is not None


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


def ready_shards(connection: Connection) -> list[Shard]:
    """Every shard that a practice works in, in the order of practice ids."""
    query = select(*_SHARD).where(shards.c.state == ShardState.READY).order_by(shards.c.practice_id)
    return [_shard(row) for row in connection.execute(query)]


def note_revision(connection: Connection, practice_id: uuid.UUID, revision: str) -> None:
    """How far the shard turned out to be."""
    is_news = (shards.c.practice_id == practice_id) & shards.c.revision.is_distinct_from(revision)
    connection.execute(update(shards).where(is_news).values(revision=revision, updated_at=func.now()))


def set_fence(connection: Connection, practice_id: uuid.UUID, fence: Fence) -> None:
    """Nobody may use the shard from now on, unless it is fenced for another deed's reason anyway."""
    is_news = shards.c.fence.is_distinct_from(fence)
    _change_fence(connection, practice_id, fence, is_news, SHARD_FENCED, family=fence.family)


def lift_fence(connection: Connection, practice_id: uuid.UUID, family: Collection[Fence] = Fence.BEHIND.family) -> None:
    """Everybody may use the shard again, as far as the fences of this family are concerned."""
    _change_fence(connection, practice_id, None, shards.c.fence.is_not(None), SHARD_UNFENCED, family=family)


def _change_fence(
    connection: Connection,
    practice_id: uuid.UUID,
    fence: Fence | None,
    is_news: ColumnElement[bool],
    change: str,
    *,
    family: Collection[Fence],
) -> None:
    own = or_(shards.c.fence.is_(None), shards.c.fence.in_(list(family)))
    statement = update(shards).where(shards.c.practice_id == practice_id, own, is_news)
    if connection.execute(statement.values(fence=fence, updated_at=func.now())).rowcount:
        record_change(connection, practice_id, change)


def move_shard(connection: Connection, practice_id: uuid.UUID, *, to: str, revision: str) -> None:
    """The practice works on another server from now on; the move's fence ends with that."""
    place = {"server": to, "revision": revision, "fence": None, "updated_at": func.now()}
    connection.execute(update(shards).where(shards.c.practice_id == practice_id).values(**place))
    record_change(connection, practice_id, SHARD_MOVED)


def erase_shard(connection: Connection, practice_id: uuid.UUID) -> None:
    """The practice's data is gone for good: what stays is that no shard will ever be made for it."""
    gone = {"state": ShardState.UNDONE, "server": None, "database": None, "fence": None, "updated_at": func.now()}
    tombstone = insert(shards).values(practice_id=practice_id, **gone)
    connection.execute(tombstone.on_conflict_do_update(index_elements=["practice_id"], set_=gone))
    record_change(connection, practice_id, SHARD_RELEASED)


def shards_on(connection: Connection, server: str) -> list[Shard]:
    """The shards that practices work in on a server."""
    query = select(*_SHARD).where(shards.c.server == server, shards.c.state == ShardState.READY)
    return [_shard(row) for row in connection.execute(query.order_by(shards.c.practice_id))]


def count_states(connection: Connection) -> dict[ShardState, int]:
    """Directory rows by state."""
    counted = func.count()
    rows = connection.execute(select(shards.c.state, counted).group_by(shards.c.state))
    return {ShardState(row[0]): row[1] for row in rows}
