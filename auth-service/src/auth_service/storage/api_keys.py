"""API keys in their table: what is stored of them is a digest."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, and_, func, insert, or_, select, update

from auth_service.schema import api_keys, interval, practices
from auth_service.storage.practices import EXISTING

USE_NOTED_EVERY_S = 60


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its practice sees it. Permissions are texts of `shared.roles.Permission`."""

    id: UUID
    practice_id: UUID
    name: str
    prefix: str
    permissions: list[str]
    created_by: UUID
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    is_expired: bool


_KEY = (
    api_keys.c.id,
    api_keys.c.practice_id,
    api_keys.c.name,
    api_keys.c.prefix,
    api_keys.c.permissions,
    api_keys.c.created_by,
    api_keys.c.created_at,
    api_keys.c.expires_at,
    api_keys.c.last_used_at,
    func.coalesce(api_keys.c.expires_at <= func.now(), False),
)
_IS_LIVE = and_(
    api_keys.c.revoked_at.is_(None), or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > func.now())
)


def insert_key(
    connection: Connection,
    key_id: UUID,
    *,
    practice_id: UUID,
    name: str,
    prefix: str,
    digest: bytes,
    permissions: Sequence[str],
    created_by: UUID,
    expires_at: datetime | None,
) -> None:
    """A new key."""
    connection.execute(
        insert(api_keys).values(
            id=key_id,
            practice_id=practice_id,
            name=name,
            prefix=prefix,
            digest=digest,
            permissions=list(permissions),
            created_by=created_by,
            expires_at=expires_at,
        )
    )


def find_key(connection: Connection, practice_id: UUID, key_id: UUID) -> ApiKey | None:
    """A key of this practice that wasn't revoked."""
    row = connection.execute(
        select(*_KEY).where(
            api_keys.c.id == key_id, api_keys.c.practice_id == practice_id, api_keys.c.revoked_at.is_(None)
        )
    ).first()
    return ApiKey(*row) if row else None


def list_keys(connection: Connection, practice_id: UUID, *, after: UUID | None, limit: int) -> list[ApiKey]:
    """The practice's keys that weren't revoked, by id; expired ones too."""
    query = select(*_KEY).where(api_keys.c.practice_id == practice_id, api_keys.c.revoked_at.is_(None))
    if after is not None:
        query = query.where(api_keys.c.id > after)
    return [ApiKey(*row) for row in connection.execute(query.order_by(api_keys.c.id).limit(limit))]


def count_live(connection: Connection, practice_id: UUID) -> int:
    """How many keys of the practice are good."""
    live = (api_keys.c.practice_id == practice_id, _IS_LIVE)
    return connection.scalar(select(func.count()).select_from(api_keys).where(*live)) or 0


def revoke_key(connection: Connection, practice_id: UUID, key_id: UUID) -> bool:
    """Whether there was a key to revoke."""
    revoked = connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.practice_id == practice_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )
    return revoked.rowcount == 1


def use_key(connection: Connection, digest: bytes) -> ApiKey | None:
    """The good key with this digest, of a practice that exists; its use is noted once a minute."""
    row = connection.execute(
        select(*_KEY)
        .join(practices, practices.c.id == api_keys.c.practice_id)
        .where(api_keys.c.digest == digest, _IS_LIVE, practices.c.status.in_(EXISTING))
    ).first()
    if row is None:
        return None
    key = ApiKey(*row)
    noted = api_keys.c.last_used_at > func.now() - interval(USE_NOTED_EVERY_S)
    connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key.id, or_(api_keys.c.last_used_at.is_(None), ~noted))
        .values(last_used_at=func.now())
    )
    return key
