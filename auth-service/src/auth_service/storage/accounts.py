"""What a log-in reads and writes of people, and their sessions."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Float, and_, bindparam, delete, func, insert, select, update

from auth_service.schema import interval, memberships, people, practices, sessions
from auth_service.storage.practices import ACTIVE, SUSPENDED


@dataclass(frozen=True, slots=True)
class Account:
    """A person and the practice that a log-in opens. `password` is a hash."""

    person_id: UUID
    password: str
    practice_id: UUID
    role: str
    practice_status: str


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


# What every log-in runs is built once: building it takes SQLAlchemy longer than PostgreSQL takes to run it.
_FIND_ACCOUNT = (
    select(people.c.id, people.c.password, memberships.c.practice_id, memberships.c.role, practices.c.status)
    .join(memberships, memberships.c.person_id == people.c.id)
    .join(practices, practices.c.id == memberships.c.practice_id)
    .where(people.c.email_key == bindparam("wanted"), practices.c.status.in_((ACTIVE, SUSPENDED)))
    .order_by(
        (practices.c.status == ACTIVE).desc(),
        memberships.c.last_used_at.desc().nulls_last(),
        memberships.c.created_at,
    )
    .limit(1)
)
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


def find_account(connection: Connection, email_key: str) -> Account | None:
    """The account of an e-mail, with the active practice that was used last, in one statement."""
    row = connection.execute(_FIND_ACCOUNT, {"wanted": email_key}).first()
    return Account(*row) if row else None


def replace_password(connection: Connection, person_id: UUID, *, old: str, new: str) -> None:
    """Stores a new hash unless the password was changed meanwhile; the practice's copy goes with it."""
    connection.execute(
        update(people)
        .where(people.c.id == person_id, people.c.password == old)
        .values(password=new, updated_at=func.now())
    )
    connection.execute(
        update(practices)
        .where(
            practices.c.password == old,
            practices.c.id.in_(select(memberships.c.practice_id).where(memberships.c.person_id == person_id)),
        )
        .values(password=new)
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
