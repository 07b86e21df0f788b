"""Sessions in their table."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Float,
    and_,
    any_,
    bindparam,
    case,
    delete,
    func,
    insert,
    null,
    select,
    update,
)

from auth_service.schema import interval, memberships, people, practices, sessions
from auth_service.storage.accounts import Account


@dataclass(frozen=True, slots=True)
class Session:
    """A session as a refresh finds it."""

    id: UUID
    person_id: UUID
    practice_id: UUID
    role: str
    practice_status: str
    lacks_second_factor: bool
    """Whether the practice wants a second factor of this role that wasn't shown in this session."""
    has_second_factor: bool
    is_verified: bool
    generation: int
    is_alive: bool
    is_in_grace: bool


_USE_MEMBERSHIP = (
    update(memberships)
    .where(memberships.c.person_id == bindparam("person"), memberships.c.practice_id == bindparam("practice"))
    .values(last_used_at=func.now())
)
# one statement: each is a round trip, and takes SQLAlchemy as long as PostgreSQL
_INSERT_SESSION = (
    insert(sessions)
    .values(
        id=bindparam("session"),
        person_id=bindparam("person"),
        practice_id=bindparam("practice"),
        expires_at=func.now() + interval(bindparam("life_s", type_=Float)),
        user_agent=bindparam("user_agent"),
        address=bindparam("address"),
        second_factor_at=case((bindparam("second_factor", type_=Boolean), func.now()), else_=null()),
    )
    .add_cte(_USE_MEMBERSHIP.cte())
)


def insert_session(
    connection: Connection,
    session_id: UUID,
    *,
    account: Account,
    life_s: int,
    user_agent: str,
    address: str,
    second_factor: bool,
) -> None:
    """A new session, and the membership becomes the one last used."""
    given = {
        "session": session_id,
        "person": account.person_id,
        "practice": account.practice_id,
        "life_s": life_s,
        "user_agent": user_agent,
        "address": address,
        "second_factor": second_factor,
    }
    connection.execute(_INSERT_SESSION, given)


def lock_session(connection: Connection, session_id: UUID, *, grace_s: int) -> Session | None:
    """The session, locked until the transaction's end."""
    row = connection.execute(
        select(
            sessions.c.id,
            sessions.c.person_id,
            sessions.c.practice_id,
            memberships.c.role,
            practices.c.status,
            and_(memberships.c.role == any_(practices.c.second_factor_roles), sessions.c.second_factor_at.is_(None)),
            sessions.c.second_factor_at.is_not(None),
            people.c.email_verified_at.is_not(None),
            sessions.c.generation,
            _is_live(),
            func.coalesce(sessions.c.rotated_at > func.now() - interval(grace_s), False),
        )
        .join(
            memberships,
            and_(
                memberships.c.person_id == sessions.c.person_id,
                memberships.c.practice_id == sessions.c.practice_id,
            ),
        )
        .join(practices, practices.c.id == sessions.c.practice_id)
        .join(people, people.c.id == sessions.c.person_id)
        .where(sessions.c.id == session_id)
        .with_for_update(of=sessions)
    ).first()
    return Session(*row) if row else None


def rotate_session(connection: Connection, session_id: UUID, *, life_s: int, address: str) -> None:
    """The next generation of refresh tokens begins."""
    connection.execute(
        update(sessions)
        .where(sessions.c.id == session_id)
        .values(
            generation=sessions.c.generation + 1,
            rotated_at=func.now(),
            last_used_at=func.now(),
            address=address,
            expires_at=func.now() + interval(life_s),
        )
    )


def revoke_session(connection: Connection, session_id: UUID) -> UUID | None:
    """Ends the session; its practice, or None when there was nothing to end."""
    practice_id: UUID | None = connection.scalar(
        update(sessions)
        .where(sessions.c.id == session_id, sessions.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
        .returning(sessions.c.practice_id)
    )
    return practice_id


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session as its owner sees it."""

    id: UUID
    practice_id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    device: str
    address: str
    current: bool
    """Whether it is the one that asks."""


def list_live(
    connection: Connection, person_id: UUID, *, current: UUID | None, before: UUID | None, limit: int
) -> list[LiveSession]:
    """The person's sessions that could be used, the newest first; `before` is the last one of the page before."""
    query = select(
        sessions.c.id,
        sessions.c.practice_id,
        sessions.c.created_at,
        sessions.c.last_used_at,
        sessions.c.expires_at,
        sessions.c.user_agent,
        sessions.c.address,
        sessions.c.id.is_not_distinct_from(current),
    ).where(sessions.c.person_id == person_id, _is_live())
    if before is not None:
        query = query.where(sessions.c.id < before)
    return [LiveSession(*row) for row in connection.execute(query.order_by(sessions.c.id.desc()).limit(limit))]


def revoke_sessions(
    connection: Connection,
    person_id: UUID,
    *,
    only: UUID | None = None,
    but: UUID | None = None,
    practice_id: UUID | None = None,
) -> list[tuple[UUID, UUID]]:
    """Ends sessions of a person: one, all but one, those in a practice. What ended, each with its practice.

    Expired ones too: an access token may outlive its session.
    """
    condition = [sessions.c.person_id == person_id, sessions.c.revoked_at.is_(None)]
    if only is not None:
        condition.append(sessions.c.id == only)
    if but is not None:
        condition.append(sessions.c.id != but)
    if practice_id is not None:
        condition.append(sessions.c.practice_id == practice_id)
    ended = connection.execute(
        update(sessions)
        .where(*condition)
        .values(revoked_at=func.now())
        .returning(sessions.c.id, sessions.c.practice_id)
    )
    return [(row.id, row.practice_id) for row in ended]


def live_sessions_of(connection: Connection, practice_id: UUID, *, person_id: UUID | None = None) -> list[UUID]:
    """The live sessions in a practice, of one person or of all."""
    condition = [sessions.c.practice_id == practice_id, _is_live()]
    if person_id is not None:
        condition.append(sessions.c.person_id == person_id)
    return list(connection.scalars(select(sessions.c.id).where(*condition)))


def _is_live() -> ColumnElement[bool]:
    return and_(sessions.c.revoked_at.is_(None), sessions.c.expires_at > func.now())


def note_second_factor(connection: Connection, session_id: UUID) -> None:
    """The session has shown a second factor."""
    connection.execute(update(sessions).where(sessions.c.id == session_id).values(second_factor_at=func.now()))


def prune_sessions(connection: Connection, *, expired_for_s: int) -> int:
    """Deletes sessions that expired long ago; how many."""
    return connection.execute(
        delete(sessions).where(sessions.c.expires_at < func.now() - interval(expired_for_s))
    ).rowcount
