"""Backups that exist, and the key that each practice's are encrypted with."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from tenant_service.schema import backup_keys, backups, shards
from tenant_service.storage.directory import ShardState


class Backup(NamedTuple):
    """A file, as it was written."""

    id: uuid.UUID
    practice_id: uuid.UUID
    path: str
    sha256: str
    bytes: int
    rows: int
    revision: str
    is_scheduled: bool
    taken_at: datetime


class Key(NamedTuple):
    """`recipient` encrypts, `identity` decrypts and is sealed."""

    practice_id: uuid.UUID
    recipient: str
    identity: str


_BACKUP = tuple(backups.c[name] for name in Backup._fields)
_KEY = tuple(backup_keys.c[name] for name in Key._fields)


def insert_backup(connection: Connection, backup: Backup) -> None:
    """Notes a file that is whole."""
    connection.execute(insert(backups).values(**backup._asdict()))


def backups_of(connection: Connection, practice_id: uuid.UUID) -> list[Backup]:
    """A practice's, the newest first."""
    query = select(*_BACKUP).where(backups.c.practice_id == practice_id).order_by(backups.c.taken_at.desc())
    return [Backup(*row) for row in connection.execute(query)]


def owner_of_file(connection: Connection, sha256: str) -> uuid.UUID | None:
    """Whose backup a file with this content is."""
    return connection.scalar(select(backups.c.practice_id).where(backups.c.sha256 == sha256).limit(1))


def delete_backups(connection: Connection, ids: Sequence[uuid.UUID]) -> None:
    """Forgets files that are gone."""
    connection.execute(delete(backups).where(backups.c.id.in_(ids)))


def due_practices(connection: Connection, *, every: timedelta, limit: int) -> list[uuid.UUID]:
    """Practices without a scheduled backup that is young enough; those that wait longest first."""
    last = (
        select(backups.c.practice_id, func.max(backups.c.taken_at).label("at"))
        .where(backups.c.is_scheduled)
        .group_by(backups.c.practice_id)
        .subquery()
    )
    query = (
        select(shards.c.practice_id)
        .outerjoin(last, last.c.practice_id == shards.c.practice_id)
        .where(
            and_(shards.c.state == ShardState.READY, shards.c.fence.is_(None)),
            or_(last.c.at.is_(None), last.c.at < func.now() - every),
        )
        .order_by(last.c.at.asc().nulls_first())
        .limit(limit)
    )
    return list(connection.scalars(query))


def find_key(connection: Connection, practice_id: uuid.UUID) -> Key | None:
    """The practice's key."""
    row = connection.execute(select(*_KEY).where(backup_keys.c.practice_id == practice_id)).one_or_none()
    return Key(*row) if row else None


def insert_key(connection: Connection, key: Key) -> Key:
    """Adds the practice's key unless it has one; the one that it has then."""
    connection.execute(insert(backup_keys).values(**key._asdict()).on_conflict_do_nothing())
    found = find_key(connection, key.practice_id)
    assert found
    return found


def delete_key(connection: Connection, practice_id: uuid.UUID) -> None:
    """No backup of the practice can be read any more, wherever copies of it are."""
    connection.execute(delete(backup_keys).where(backup_keys.c.practice_id == practice_id))


def all_keys(connection: Connection) -> list[Key]:
    """Every practice's."""
    return [Key(*row) for row in connection.execute(select(*_KEY))]


def change_identity(connection: Connection, key: Key, identity: str) -> None:
    """The same key, sealed anew; nothing where it was changed or destroyed meanwhile."""
    is_it = and_(backup_keys.c.practice_id == key.practice_id, backup_keys.c.identity == key.identity)
    connection.execute(update(backup_keys).where(is_it).values(identity=identity))
