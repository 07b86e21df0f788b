"""People, beyond what a log-in needs of them."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from auth_service.schema import people


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an e-mail and a password. `password` is a hash."""

    id: UUID
    name: str
    email: str
    email_key: str
    password: str
    is_verified: bool


_PERSON = (
    people.c.id,
    people.c.name,
    people.c.email,
    people.c.email_key,
    people.c.password,
    people.c.email_verified_at.is_not(None),
)


def find_person(connection: Connection, person_id: UUID) -> Person | None:
    """The person with this id."""
    return _find(connection, people.c.id == person_id)


def lock_person(connection: Connection, person_id: UUID) -> Person | None:
    """The same, and nobody else changes the person until the transaction's end."""
    connection.execute(select(people.c.id).where(people.c.id == person_id).with_for_update(key_share=True))
    return find_person(connection, person_id)


def find_person_by_email(connection: Connection, email_key: str) -> Person | None:
    """The person with this e-mail, as e-mails are compared."""
    return _find(connection, people.c.email_key == email_key)


def _find(connection: Connection, condition: ColumnElement[bool]) -> Person | None:
    row = connection.execute(select(*_PERSON).where(condition)).first()
    return Person(*row) if row else None


def insert_person(connection: Connection, person: Person) -> None:
    """A new person. IntegrityError when the e-mail is taken."""
    verified_at = func.now() if person.is_verified else None
    connection.execute(
        insert(people).values(
            id=person.id,
            name=person.name,
            email=person.email,
            email_key=person.email_key,
            password=person.password,
            email_verified_at=verified_at,
        )
    )


def mark_verified(connection: Connection, person_id: UUID, *, email_key: str) -> bool:
    """Notes that the e-mail is the person's own; whether the person (still) has it."""
    marked = connection.execute(
        update(people)
        .where(people.c.id == person_id, people.c.email_key == email_key)
        .values(email_verified_at=func.coalesce(people.c.email_verified_at, func.now()), updated_at=func.now())
    )
    return marked.rowcount == 1
