"""Practices that are being closed, and what is left of those that were."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, select, update

from auth_service.schema import (
    api_keys,
    deletion_records,
    interval,
    invitations,
    memberships,
    outbox,
    people,
    practices,
    sessions,
)
from auth_service.storage.practices import CLOSED, CLOSING


class Closure(NamedTuple):
    """Until when a closing can be undone, and what the practice was before."""

    until: datetime
    status_before: str


def begin_closing(connection: Connection, practice_id: UUID, *, status_before: str, grace_s: float) -> Closure:
    """The practice is being closed from now on."""
    row = connection.execute(
        update(practices)
        .where(practices.c.id == practice_id)
        .values(
            status=CLOSING,
            status_before=status_before,
            closes_at=func.now() + interval(grace_s),
            updated_at=func.now(),
        )
        .returning(practices.c.closes_at, practices.c.status_before)
    ).one()
    return Closure(*row)


def find_closure(connection: Connection, practice_id: UUID) -> Closure | None:
    """Of a practice that is being closed."""
    row = connection.execute(
        select(practices.c.closes_at, practices.c.status_before).where(
            practices.c.id == practice_id, practices.c.status == CLOSING
        )
    ).first()
    return Closure(*row) if row else None


def end_closing(connection: Connection, practice_id: UUID, *, status: str) -> None:
    """The practice goes on as what it was."""
    values = {"status": status, "status_before": None, "closes_at": None, "updated_at": func.now()}
    connection.execute(update(practices).where(practices.c.id == practice_id).values(**values))


def overdue(connection: Connection, *, limit: int) -> list[UUID]:
    """Practices whose time to undo the closing is over; in no order, so that none can block the others."""
    is_overdue = (practices.c.status == CLOSING) & (practices.c.closes_at <= func.now())
    query = select(practices.c.id).where(is_overdue).order_by(func.random()).limit(limit)
    return list(connection.scalars(query))


def erase_practice(connection: Connection, practice_id: UUID) -> tuple[int, list[UUID]]:
    """Removes all that names somebody: how many people, and which sessions. The e-mails are free again.

    People who work elsewhere too keep their account. The audit stays: nobody can change it.
    """
    of_practice = memberships.c.practice_id == practice_id
    persons = list(connection.scalars(delete(memberships).where(of_practice).returning(memberships.c.person_id)))
    elsewhere = select(memberships.c.person_id).where(memberships.c.person_id == people.c.id).exists()
    leaving = list(connection.scalars(select(people.c.id).where(people.c.id.in_(persons), ~elsewhere)))
    theirs = (sessions.c.practice_id == practice_id) | sessions.c.person_id.in_(leaving)
    ended = list(connection.scalars(delete(sessions).where(theirs).returning(sessions.c.id)))
    for table in (invitations, api_keys, outbox):
        connection.execute(delete(table).where(table.c.practice_id == practice_id))
    connection.execute(delete(people).where(people.c.id.in_(leaving)))
    anonymous = {"name": "closed", "email": f"{practice_id}@closed.invalid", "password": ""}
    over = {"status": CLOSED, "closes_at": None, "status_before": None, "updated_at": func.now()}
    connection.execute(update(practices).where(practices.c.id == practice_id).values(**anonymous, **over))
    return len(leaving), ended


def insert_record(connection: Connection, practice_id: UUID, record: str) -> None:
    """Keeps the signed record of a deletion."""
    connection.execute(insert(deletion_records).values(practice_id=practice_id, record=record))


def find_record(connection: Connection, practice_id: UUID) -> str | None:
    """The signed record of the practice's deletion."""
    return connection.scalar(select(deletion_records.c.record).where(deletion_records.c.practice_id == practice_id))
