"""Practices with their owners: being provisioned, active, undone."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from auth_service.schema import abandoned_signups, interval, memberships, people, practices

PROVISIONING, ACTIVE, SUSPENDED, CLOSING, CLOSED = "provisioning", "active", "suspended", "closing", "closed"
AT_REST = (SUSPENDED, CLOSING)
"""Nobody of such a practice gets in, and no session ends: it may go on."""
EXISTING = (ACTIVE, *AT_REST)
EMAIL_CONSTRAINTS = frozenset({"people_email_key_key", "practices_email_key"})


@dataclass(frozen=True, slots=True)
class SignUp:
    """What a practice and its owner begin with. `password` is a hash."""

    practice_id: UUID
    person_id: UUID
    name: str
    email: str
    email_key: str
    password: str
    role: str


@dataclass(frozen=True, slots=True)
class Practice:
    """A practice as the lists show it."""

    id: UUID
    name: str
    email: str
    status: str
    database_name: str | None
    created_at: datetime


_SHOWN = (
    practices.c.id,
    practices.c.name,
    practices.c.email,
    practices.c.status,
    practices.c.database_name,
    practices.c.created_at,
)


# What every sign-up runs is built once, as what every log-in runs.
_INSERT_PERSON, _INSERT_PRACTICE, _INSERT_MEMBERSHIP = map(insert, (people, practices, memberships))
_FIND_EMAIL = select(people.c.id).where(people.c.email_key == bindparam("wanted"))
_ACTIVATE = (
    update(practices)
    .where(practices.c.id == bindparam("practice"), practices.c.status == PROVISIONING)
    .values(status=ACTIVE, database_name=bindparam("database"), updated_at=func.now())
)


def insert_signup(connection: Connection, signup: SignUp) -> None:
    """Person, practice and membership. IntegrityError of one of EMAIL_CONSTRAINTS when the e-mail is taken."""
    both = {"name": signup.name, "email": signup.email, "password": signup.password}
    connection.execute(_INSERT_PERSON, {"id": signup.person_id, "email_key": signup.email_key, **both})
    connection.execute(_INSERT_PRACTICE, {"id": signup.practice_id, "status": PROVISIONING, **both})
    who = {"person_id": signup.person_id, "practice_id": signup.practice_id}
    connection.execute(_INSERT_MEMBERSHIP, who | {"role": signup.role})


def is_email_taken(connection: Connection, email_key: str) -> bool:
    """Whether a sign-up would fail for its e-mail. Only insert_signup decides; this spares work before it."""
    return connection.scalar(_FIND_EMAIL, {"wanted": email_key}) is not None


def activate(connection: Connection, practice_id: UUID, *, database_name: str) -> bool:
    """Whether the practice was still being provisioned and is active now."""
    return connection.execute(_ACTIVATE, {"practice": practice_id, "database": database_name}).rowcount == 1


def undo_signup(connection: Connection, practice_id: UUID) -> bool:
    """Deletes a sign-up that is still being provisioned and notes its shard for release. False: it isn't (any more)."""
    is_open = select(practices.c.id).where(practices.c.id == practice_id, practices.c.status == PROVISIONING)
    if connection.execute(is_open.with_for_update()).first() is None:
        return False
    of_practice = memberships.c.practice_id == practice_id
    persons = list(connection.scalars(delete(memberships).where(of_practice).returning(memberships.c.person_id)))
    connection.execute(delete(practices).where(practices.c.id == practice_id))
    elsewhere = select(memberships.c.person_id).where(memberships.c.person_id == people.c.id).exists()
    connection.execute(delete(people).where(people.c.id.in_(persons), ~elsewhere))
    connection.execute(upsert(abandoned_signups).values(practice_id=practice_id).on_conflict_do_nothing())
    return True


def lock_practice(connection: Connection, practice_id: UUID) -> Practice | None:
    """The practice, locked until the transaction's end against all but new sessions, which only refer to it."""
    row = connection.execute(
        select(*_SHOWN).where(practices.c.id == practice_id).with_for_update(key_share=True)
    ).first()
    return Practice(*row) if row else None


def find_practice(connection: Connection, practice_id: UUID) -> Practice | None:
    """The practice with this id."""
    row = connection.execute(select(*_SHOWN).where(practices.c.id == practice_id)).first()
    return Practice(*row) if row else None


def change_status(connection: Connection, practice_id: UUID, status: str) -> None:
    """Gives the practice another status."""
    connection.execute(
        update(practices).where(practices.c.id == practice_id).values(status=status, updated_at=func.now())
    )


def status_of(connection: Connection, practice_id: UUID) -> str | None:
    """The practice's status; None when there is no such practice."""
    return connection.scalar(select(practices.c.status).where(practices.c.id == practice_id))


def stale_signups(connection: Connection, *, older_than_s: float, limit: int) -> list[UUID]:
    """Sign-ups that nobody is working on any more; those that another transaction holds are left out."""
    age = interval(older_than_s)
    return list(
        connection.scalars(
            select(practices.c.id)
            .where(practices.c.status == PROVISIONING, practices.c.created_at < func.now() - age)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
    )


def unreleased_shards(connection: Connection, *, limit: int) -> list[UUID]:
    """Undone sign-ups whose shards tenant-service didn't drop yet; in no order, so that none can block the others."""
    return list(
        connection.scalars(
            select(abandoned_signups.c.practice_id)
            .where(abandoned_signups.c.released_at.is_(None))
            .order_by(func.random())
            .limit(limit)
        )
    )


def mark_released(connection: Connection, practice_id: UUID) -> None:
    """Notes that tenant-service dropped what it had of this undone sign-up."""
    connection.execute(
        update(abandoned_signups).where(abandoned_signups.c.practice_id == practice_id).values(released_at=func.now())
    )


def list_practices(
    connection: Connection, *, after: UUID | None, limit: int, registered_only: bool, only: UUID | None = None
) -> list[Practice]:
    """Practices by id, which is by age; `after` is the last one of the page before. Else also half-made and closed."""
    query = select(*_SHOWN)
    if registered_only:
        query = query.where(practices.c.status.in_(EXISTING))
    if only is not None:
        query = query.where(practices.c.id == only)
    if after is not None:
        query = query.where(practices.c.id > after)
    return [Practice(*row) for row in connection.execute(query.order_by(practices.c.id).limit(limit))]
