"""What a log-in reads and writes of people."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, bindparam, func, select, update

from auth_service.schema import memberships, people, practices
from auth_service.storage.practices import ACTIVE, SUSPENDED


@dataclass(frozen=True, slots=True)
class Account:
    """A person and the practice that a log-in opens. `password` is a hash."""

    person_id: UUID
    password: str
    practice_id: UUID
    role: str
    practice_status: str


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
