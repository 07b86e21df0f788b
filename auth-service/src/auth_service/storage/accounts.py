"""What a log-in reads and writes of people."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, any_, bindparam, func, select, update

from auth_service.schema import memberships, people, practices, second_factors
from auth_service.storage.practices import ACTIVE, EXISTING


@dataclass(frozen=True, slots=True)
class Account:
    """A person and the practice that is opened. `password` is a hash."""

    person_id: UUID
    name: str
    email: str
    password: str
    is_verified: bool
    practice_id: UUID
    role: str
    practice_status: str
    has_second_factor: bool
    needs_second_factor: bool
    """Whether the practice wants one of this role."""


# What every log-in runs is built once: building it takes SQLAlchemy longer than PostgreSQL takes to run it.
_ACCOUNT = (
    people.c.id,
    people.c.name,
    people.c.email,
    people.c.password,
    people.c.email_verified_at.is_not(None),
    memberships.c.practice_id,
    memberships.c.role,
    practices.c.status,
    select(second_factors.c.id)
    .where(second_factors.c.person_id == people.c.id, second_factors.c.confirmed_at.is_not(None))
    .exists(),
    memberships.c.role == any_(practices.c.second_factor_roles),
)
_FIND_ACCOUNT = (
    select(*_ACCOUNT)
    .join(memberships, memberships.c.person_id == people.c.id)
    .join(practices, practices.c.id == memberships.c.practice_id)
    .where(people.c.email_key == bindparam("wanted"), practices.c.status.in_(EXISTING))
    .order_by(
        (practices.c.status == ACTIVE).desc(),
        memberships.c.last_used_at.desc().nulls_last(),
        memberships.c.created_at,
    )
    .limit(1)
)


_FIND_ACCOUNT_IN = (
    select(*_ACCOUNT)
    .join(memberships, memberships.c.person_id == people.c.id)
    .join(practices, practices.c.id == memberships.c.practice_id)
    .where(
        people.c.id == bindparam("person"),
        practices.c.id == bindparam("practice"),
        practices.c.status.in_(EXISTING),
    )
)
_KNOWN_HASH = select(people.c.id).where(people.c.id == bindparam("person"), people.c.password == bindparam("hash"))
_HOLD = _KNOWN_HASH.with_for_update(read=True)
_HOLD_TO_CHANGE = _KNOWN_HASH.with_for_update(key_share=True)


def hold_password(connection: Connection, account: Account, *, to_change: bool) -> bool:
    """Whether this is still the person's password; nobody changes it until the transaction's end.

    So a session that an old password opened is there before a reset looks for sessions, or is never opened.
    """
    statement = _HOLD_TO_CHANGE if to_change else _HOLD
    return connection.scalar(statement, {"person": account.person_id, "hash": account.password}) is not None


def find_account(connection: Connection, email_key: str) -> Account | None:
    """The account of an e-mail, with the active practice that was used last, in one statement."""
    row = connection.execute(_FIND_ACCOUNT, {"wanted": email_key}).first()
    return Account(*row) if row else None


def find_account_in(connection: Connection, person_id: UUID, practice_id: UUID) -> Account | None:
    """The account of a person in one practice."""
    row = connection.execute(_FIND_ACCOUNT_IN, {"person": person_id, "practice": practice_id}).first()
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
