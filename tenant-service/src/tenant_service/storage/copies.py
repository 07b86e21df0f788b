"""Databases with a practice's data beside its live one: restored, left behind by a move, put aside by a swap."""

import uuid
from collections.abc import Collection
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.shards import ShardName
from tenant_service.schema import copies, jobs
from tenant_service.storage.jobs import UNFINISHED


class CopyOrigin(StrEnum):
    """Where a copy comes from."""

    RESTORED = "restored"
    MOVED = "moved"
    SWAPPED = "swapped"


class CopyState(StrEnum):
    """`making` → `ready`."""

    MAKING = "making"
    READY = "ready"


class Copy(NamedTuple):
    """A copy of a practice's data. `swap_oid` is what its database was when a swap of it began."""

    practice_id: uuid.UUID
    server: str
    database: str
    origin: CopyOrigin
    state: CopyState
    swap_oid: int | None = None

    @property
    def name(self) -> ShardName:
        """Its place."""
        return ShardName(self.server, self.database)


_COPY = tuple(copies.c[name] for name in Copy._fields)


def insert_copy(connection: Connection, copy: Copy, *, kept_for: timedelta, job_id: uuid.UUID | None = None) -> None:
    """Adds a copy, or renews it: it is kept for so long from now on."""
    values = copy._asdict() | {"job_id": job_id, "expires_at": func.now() + kept_for}
    statement = insert(copies).values(**values)
    connection.execute(statement.on_conflict_do_update(index_elements=["server", "database"], set_=values))


def find_copy(connection: Connection, practice_id: uuid.UUID, database: str) -> Copy | None:
    """A practice's copy that is ready, by its database."""
    of_practice = and_(copies.c.practice_id == practice_id, copies.c.database == database)
    return next(iter(_found(connection, of_practice, copies.c.state == CopyState.READY)), None)


def copies_of(connection: Connection, practice_id: uuid.UUID) -> list[Copy]:
    """All copies of a practice."""
    return _found(connection, copies.c.practice_id == practice_id)


def ready_copies_of(connection: Connection, practice_ids: Collection[uuid.UUID]) -> list[Copy]:
    """The copies of these practices that are whole."""
    return _found(connection, copies.c.practice_id.in_(practice_ids), copies.c.state == CopyState.READY)


def copy_at(connection: Connection, place: ShardName) -> Copy | None:
    """The copy at this place."""
    return next(iter(_found(connection, copies.c.server == place.server, copies.c.database == place.database)), None)


def made_by(connection: Connection, job_id: uuid.UUID) -> Copy | None:
    """The copy that a job makes or has made."""
    return next(iter(_found(connection, copies.c.job_id == job_id)), None)


def copies_among(connection: Connection, server: str, databases: Collection[str]) -> set[str]:
    """Those of a server's databases that are copies."""
    query = select(copies.c.database).where(copies.c.server == server, copies.c.database.in_(databases))
    return set(connection.scalars(query)) if databases else set()


def superfluous_copies(connection: Connection, *, limit: int) -> list[Copy]:
    """Those whose time is over, and those whose maker is gone."""
    unfinished = select(jobs.c.id).where(jobs.c.id == copies.c.job_id, jobs.c.state.in_(UNFINISHED)).exists()
    orphaned = and_(copies.c.state == CopyState.MAKING, ~unfinished)
    return _found(connection, or_(copies.c.expires_at < func.now(), orphaned))[:limit]


def mark_ready(connection: Connection, place: ShardName) -> None:
    """The copy is whole."""
    connection.execute(update(copies).where(*_at(place)).values(state=CopyState.READY))


def note_swap(connection: Connection, place: ShardName, oid: int | None) -> None:
    """A swap of it begins: of the database with this oid. Or it is over."""
    connection.execute(update(copies).where(*_at(place)).values(swap_oid=oid))


def delete_copy(connection: Connection, place: ShardName) -> None:
    """Forgets a copy whose database is gone, or is none any more."""
    connection.execute(delete(copies).where(*_at(place)))


def _at(place: ShardName) -> tuple[ColumnElement[bool], ...]:
    return copies.c.server == place.server, copies.c.database == place.database


def _found(connection: Connection, *conditions: ColumnElement[bool]) -> list[Copy]:
    rows = connection.execute(select(*_COPY).where(*conditions).order_by(copies.c.created_at))
    return [Copy(*row)._replace(origin=CopyOrigin(row.origin), state=CopyState(row.state)) for row in rows]
