"""Sessions in their table."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Float, and_, bindparam, delete, func, insert, select, update

from auth_service.schema import interval, memberships, practices, sessions
from auth_service.storage.accounts import Account


@dataclass(frozen=True, slots=True)
class Session:
    """A session as a refresh finds it."""

    id: UUID
    person_id: UUID
    practice_id: UUID
    role: str
    practice_status: str
    generation: int
    is_alive: bool
    is_in_grace: bool


_USE_MEMBERSHIP = (
    update(memberships)
    .where(memberships.c.person_id == bindparam("person"), memberships.c.practice_id == bindparam("practice"))
    .values(last_used_at=func.now())
)
_INSERT_SESSION = insert(sessions).values(
    id=bindparam("session"),
    person_id=bindparam("person"),
    practice_id=bindparam("practice"),
    expires_at=func.now() + interval(bindparam("life_s", type_=Float)),
    user_agent=bindparam("user_agent"),
    address=bindparam("address"),
)


def insert_session(
    connection: Connection, session_id: UUID, *, account: Account, life_s: int, user_agent: str, address: str
) -> None:
    """A new session, and the membership becomes the one last used."""
    who = {"person": account.person_id, "practice": account.practice_id}
    connection.execute(_USE_MEMBERSHIP, who)
    given = {"session": session_id, "life_s": life_s, "user_agent": user_agent, "address": address}
    connection.execute(_INSERT_SESSION, who | given)


def lock_session(connection: Connection, session_id: UUID, *, grace_s: int) -> Session | None:
    """The session, locked until the transaction's end."""
    row = connection.execute(
        select(
            sessions.c.id,
            sessions.c.person_id,
            sessions.c.practice_id,
            memberships.c.role,
            practices.c.status,
            sessions.c.generation,
            and_(sessions.c.revoked_at.is_(None), sessions.c.expires_at > func.now()),
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
        .where(sessions.c.id == session_id)
        .with_for_update(of=sessions)
    ).first()
    return Session(*row) if row else None


def rotate_session(connection: Connection, session_id: UUID, *, life_s: int) -> None:
    """The next generation of refresh tokens begins."""
    connection.execute(
        update(sessions)
        .where(sessions.c.id == session_id)
        .values(
            generation=sessions.c.generation + 1,
            rotated_at=func.now(),
            last_used_at=func.now(),
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


def prune_sessions(connection: Connection, *, expired_for_s: int) -> int:
    """Deletes sessions that expired long ago; how many."""
    return connection.execute(
        delete(sessions).where(sessions.c.expires_at < func.now() - interval(expired_for_s))
    ).rowcount
