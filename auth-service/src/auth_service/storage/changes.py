"""What gateways have to learn soon, in an order they can follow by number alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Connection, and_, delete, func, insert, not_, or_, select

from auth_service.schema import changes, interval, practices
from auth_service.storage.practices import AT_REST
from shared.changes import PRACTICE_SUSPENDED, SESSION_CHANGED, SESSION_REVOKED

_SECOND = func.floor(func.extract("epoch", changes.c.at)).cast(BigInteger)
_ORDER_LOCK = 0x6175_7468_0001
"""Advisory lock held by whoever adds a change until the commit: numbers become visible in their order."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change, as gateways are told it."""

    seq: int
    kind: str
    practice_id: UUID | None
    session_id: UUID | None
    at: int
    """Unix time, in whole seconds as tokens have it."""


def add_change(connection: Connection, kind: str, *, practice_id: UUID | None, session_id: UUID | None) -> None:
    """Adds a change. Should come last in its transaction: others wait for its end."""
    connection.execute(select(func.pg_advisory_xact_lock(_ORDER_LOCK)))
    connection.execute(insert(changes).values(kind=kind, practice_id=practice_id, session_id=session_id))


def add_session_changes(
    connection: Connection, kind: str, sessions: Iterable[UUID], *, practice_id: UUID | None
) -> None:
    """The same for several sessions at once."""
    rows = [{"kind": kind, "practice_id": practice_id, "session_id": session_id} for session_id in sessions]
    if rows:
        connection.execute(select(func.pg_advisory_xact_lock(_ORDER_LOCK)))
        connection.execute(insert(changes), rows)


def last_seq(connection: Connection) -> int:
    """The newest change's number; 0 when there was none yet."""
    return connection.scalar(select(func.coalesce(func.max(changes.c.seq), 0))) or 0


def changes_between(connection: Connection, after: int, *, until: int, limit: int) -> list[Change]:
    """Changes after a number and up to another, in order."""
    return _read(connection, changes.c.seq > after, changes.c.seq <= until, limit=limit)


def changes_in_force(connection: Connection, *, age_s: int, until: int, limit: int) -> list[Change]:
    """What somebody who knows nothing has to know, in order: young revocations, and suspensions that weren't undone."""
    young = and_(changes.c.kind.in_((SESSION_REVOKED, SESSION_CHANGED)), changes.c.at >= func.now() - interval(age_s))
    return _read(connection, or_(young, _suspension_in_force()), changes.c.seq <= until, limit=limit)


def prune_changes(connection: Connection, *, age_s: int) -> int:
    """Deletes changes that matter to nobody any more; how many.

    A suspension stays as long as it lasts, and the newest change of all, which carries the number.
    """
    newest = select(func.max(changes.c.seq)).scalar_subquery()
    old = changes.c.at < func.now() - interval(age_s)
    return connection.execute(delete(changes).where(old, changes.c.seq < newest, not_(_suspension_in_force()))).rowcount


def _suspension_in_force() -> ColumnElement[bool]:
    suspended = select(practices.c.id).where(practices.c.status.in_(AT_REST))
    return and_(changes.c.kind == PRACTICE_SUSPENDED, changes.c.practice_id.in_(suspended))


def _read(connection: Connection, *conditions: ColumnElement[bool], limit: int) -> list[Change]:
    rows = connection.execute(
        select(changes.c.seq, changes.c.kind, changes.c.practice_id, changes.c.session_id, _SECOND)
        .where(*conditions)
        .order_by(changes.c.seq)
        .limit(limit)
    )
    return [Change(*row) for row in rows]
