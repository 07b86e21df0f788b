"""Shards made ahead: their rows, and the claim that turns one into a practice's."""

import uuid
from collections.abc import Collection
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import Connection, Select, Text, Uuid, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.shards import ShardName
from tenant_service.central import Lock
from tenant_service.schema import shards, warm_shards
from tenant_service.storage.directory import ShardState


class WarmState(StrEnum):
    """`making` → `ready` → claimed, which ends the row; both → `dropping` when nobody is to have it any more."""

    MAKING = "making"
    READY = "ready"
    DROPPING = "dropping"


class WarmShard(NamedTuple):
    """A row of the pool."""

    server: str
    database: str
    state: WarmState
    revision: str

    @property
    def name(self) -> ShardName:
        """Its place."""
        return ShardName(self.server, self.database)


_WARM = (warm_shards.c.server, warm_shards.c.database, warm_shards.c.state, warm_shards.c.revision)


def _claim_statement() -> Select[tuple[str]]:
    """One statement: picks a ready shard, adds the practice's row there, and ends the shard's own."""
    here = warm_shards.c.server == bindparam("server", type_=Text)
    fitting = warm_shards.c.revision == bindparam("revision", type_=Text)
    picked = (
        select(warm_shards.c.database)
        .where(here, warm_shards.c.state == WarmState.READY, fitting)
        .order_by(warm_shards.c.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .cte("picked")
    )
    spare = bindparam("otherwise", type_=Text)
    place = {
        "practice_id": bindparam("practice", type_=Uuid),
        "server": bindparam("server", type_=Text),
        "database": func.coalesce(select(picked.c.database).scalar_subquery(), spare),
        "state": ShardState.CREATING,
        "revision": bindparam("revision", type_=Text),
    }
    reserved = (
        insert(shards)
        .values(place)
        .on_conflict_do_nothing(index_elements=["practice_id"])
        .returning(shards.c.database)
        .cte("reserved")
    )
    taken = delete(warm_shards).where(warm_shards.c.database.in_(select(reserved.c.database))).cte("taken")
    return select(reserved.c.database).add_cte(taken)


_CLAIM = _claim_statement()


def claim(
    connection: Connection, practice_id: uuid.UUID, *, server: str, revision: str, otherwise: str
) -> ShardName | None:
    """Adds the practice's row (`creating`) at a ready shard of that server and revision, else at the name `otherwise`.

    None, and nothing changed, when the practice has a row already.
    """
    values = {"practice": practice_id, "server": server, "revision": revision, "otherwise": otherwise}
    row = connection.execute(_CLAIM, values).one_or_none()
    return ShardName(server, row.database) if row else None


def lock_pool(connection: Connection) -> None:
    """Lets one transaction at a time decide that a shard is missing, so that replicas don't make it twice."""
    connection.execute(select(func.pg_advisory_xact_lock(Lock.WARM_POOL, 0)))


def claimed_within(connection: Connection, server: str, *, seconds: float) -> int:
    """Practices that got a place on the server lately."""
    since = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    query = select(func.count()).where(shards.c.server == server, shards.c.created_at > since)
    return int(connection.execute(query).scalar_one())


def insert_making(connection: Connection, place: ShardName, *, revision: str) -> None:
    """Notes the name before anything bears it."""
    connection.execute(
        insert(warm_shards).values(
            database=place.database, server=place.server, state=WarmState.MAKING, revision=revision
        )
    )


def mark_ready(connection: Connection, database: str) -> bool:
    """`making` → `ready`; false when it is to be dropped, or is nobody's, meanwhile."""
    statement = update(warm_shards).where(warm_shards.c.database == database, warm_shards.c.state == WarmState.MAKING)
    return connection.execute(statement.values(state=WarmState.READY)).rowcount == 1


def discard(connection: Connection, server: str, *, revisions: Collection[str]) -> None:
    """→ `dropping`: those of these revisions."""
    connection.execute(
        update(warm_shards)
        .where(
            warm_shards.c.server == server,
            warm_shards.c.revision.in_(revisions),
            warm_shards.c.state != WarmState.DROPPING,
        )
        .values(state=WarmState.DROPPING)
    )


def forget(connection: Connection, databases: Collection[str]) -> None:
    """Ends rows: nobody can claim these any more."""
    connection.execute(delete(warm_shards).where(warm_shards.c.database.in_(databases)))


def find_warm(connection: Connection, database: str) -> WarmShard | None:
    """The row of a database."""
    row = connection.execute(select(*_WARM).where(warm_shards.c.database == database)).one_or_none()
    return WarmShard(row.server, row.database, WarmState(row.state), row.revision) if row else None


def list_warm(connection: Connection) -> list[WarmShard]:
    """All rows, the oldest first."""
    rows = connection.execute(select(*_WARM).order_by(warm_shards.c.created_at))
    return [WarmShard(row.server, row.database, WarmState(row.state), row.revision) for row in rows]
