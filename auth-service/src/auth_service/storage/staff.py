"""Who works in a practice, and who is invited to."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from auth_service.schema import interval, invitations, memberships, people, practices, sessions
from auth_service.tokens import digest_of

INVITATION_LIFE_S = 72 * 3600


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who works in a practice."""

    id: UUID
    name: str
    email: str
    role: str
    created_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Invitation:
    """Somebody who may join. `is_expired` until it is sent again or revoked."""

    id: UUID
    practice_id: UUID
    email: str
    email_key: str
    role: str
    created_at: datetime
    sent_at: datetime
    expires_at: datetime
    is_expired: bool


@dataclass(frozen=True, slots=True)
class Workplace:
    """A practice in which a person works."""

    id: UUID
    name: str
    role: str
    status: str


_MEMBER = (
    people.c.id,
    people.c.name,
    people.c.email,
    memberships.c.role,
    memberships.c.created_at,
    memberships.c.last_used_at,
)
_INVITATION = (
    invitations.c.id,
    invitations.c.practice_id,
    invitations.c.email,
    invitations.c.email_key,
    invitations.c.role,
    invitations.c.created_at,
    invitations.c.sent_at,
    invitations.c.expires_at,
    invitations.c.expires_at <= func.now(),
)


def list_members(connection: Connection, practice_id: UUID, *, after: UUID | None, limit: int) -> list[Member]:
    """Members by id; `after` is the last one of the page before."""
    query = (
        select(*_MEMBER)
        .join(memberships, memberships.c.person_id == people.c.id)
        .where(memberships.c.practice_id == practice_id)
        .order_by(people.c.id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(people.c.id > after)
    return [Member(*row) for row in connection.execute(query)]


def find_member(connection: Connection, practice_id: UUID, person_id: UUID) -> Member | None:
    """The member with this id."""
    row = connection.execute(
        select(*_MEMBER)
        .join(memberships, memberships.c.person_id == people.c.id)
        .where(memberships.c.practice_id == practice_id, people.c.id == person_id)
    ).first()
    return Member(*row) if row else None


def is_member(connection: Connection, practice_id: UUID, email_key: str) -> bool:
    """Whether somebody with this e-mail works there."""
    found = (
        select(people.c.id)
        .join(memberships, memberships.c.person_id == people.c.id)
        .where(memberships.c.practice_id == practice_id, people.c.email_key == email_key)
    )
    return connection.scalar(select(found.exists())) or False


def list_workplaces(connection: Connection, person_id: UUID, statuses: tuple[str, ...]) -> list[Workplace]:
    """The practices of a person, of those in these states."""
    rows = connection.execute(
        select(practices.c.id, practices.c.name, memberships.c.role, practices.c.status)
        .join(memberships, memberships.c.practice_id == practices.c.id)
        .where(memberships.c.person_id == person_id, practices.c.status.in_(statuses))
        .order_by(practices.c.name, practices.c.id)
    )
    return [Workplace(*row) for row in rows]


def count_members(connection: Connection, practice_id: UUID, *, role: str) -> int:
    """How many have the role."""
    wanted = (memberships.c.practice_id == practice_id, memberships.c.role == role)
    return connection.scalar(select(func.count()).select_from(memberships).where(*wanted)) or 0


def add_member(connection: Connection, practice_id: UUID, person_id: UUID, role: str) -> None:
    """Makes somebody a member; who is one already keeps the role."""
    connection.execute(
        upsert(memberships).values(practice_id=practice_id, person_id=person_id, role=role).on_conflict_do_nothing()
    )


def change_role(connection: Connection, practice_id: UUID, person_id: UUID, role: str) -> None:
    """The member has another role."""
    connection.execute(update(memberships).where(*_is(practice_id, person_id)).values(role=role))


def remove_member(connection: Connection, practice_id: UUID, person_id: UUID) -> None:
    """The person is no member any more; one who works nowhere is forgotten, so that the e-mail is free again."""
    connection.execute(delete(memberships).where(*_is(practice_id, person_id)))
    elsewhere = select(memberships.c.person_id).where(memberships.c.person_id == person_id).exists()
    if not connection.scalar(select(elsewhere)):
        connection.execute(delete(sessions).where(sessions.c.person_id == person_id))
        connection.execute(delete(people).where(people.c.id == person_id))


def _is(practice_id: UUID, person_id: UUID) -> tuple[ColumnElement[bool], ...]:
    return memberships.c.practice_id == practice_id, memberships.c.person_id == person_id


def insert_invitation(
    connection: Connection,
    invitation_id: UUID,
    *,
    practice_id: UUID,
    email: str,
    email_key: str,
    role: str,
    token: str,
    invited_by: UUID,
) -> None:
    """A new invitation, good for 72 hours."""
    connection.execute(
        insert(invitations).values(
            id=invitation_id,
            practice_id=practice_id,
            email=email,
            email_key=email_key,
            role=role,
            digest=digest_of(token),
            invited_by=invited_by,
            expires_at=func.now() + interval(INVITATION_LIFE_S),
        )
    )


def renew_invitation(connection: Connection, invitation_id: UUID, *, token: str) -> None:
    """Another token, another 72 hours; the token before is worth nothing."""
    connection.execute(
        update(invitations)
        .where(invitations.c.id == invitation_id)
        .values(digest=digest_of(token), sent_at=func.now(), expires_at=func.now() + interval(INVITATION_LIFE_S))
    )


def list_invitations(connection: Connection, practice_id: UUID, *, after: UUID | None, limit: int) -> list[Invitation]:
    """Open invitations by id, expired ones too."""
    query = select(*_INVITATION).where(invitations.c.practice_id == practice_id, _is_open())
    if after is not None:
        query = query.where(invitations.c.id > after)
    return [Invitation(*row) for row in connection.execute(query.order_by(invitations.c.id).limit(limit))]


def find_invitation(connection: Connection, practice_id: UUID, invitation_id: UUID) -> Invitation | None:
    """An open invitation of this practice."""
    return _find(connection, invitations.c.practice_id == practice_id, invitations.c.id == invitation_id)


def find_invitation_to(connection: Connection, practice_id: UUID, email_key: str) -> Invitation | None:
    """The open invitation to this e-mail."""
    return _find(connection, invitations.c.practice_id == practice_id, invitations.c.email_key == email_key)


def find_invitation_by_token(connection: Connection, token: str) -> Invitation | None:
    """The invitation that can be accepted with this token."""
    return _find(connection, invitations.c.digest == digest_of(token), invitations.c.expires_at > func.now())


def _find(connection: Connection, *conditions: ColumnElement[bool]) -> Invitation | None:
    row = connection.execute(select(*_INVITATION).where(*conditions, _is_open())).first()
    return Invitation(*row) if row else None


def accept_invitation(connection: Connection, token: str) -> bool:
    """Whether it could be accepted; of several calls at once one succeeds."""
    accepted = connection.execute(
        update(invitations)
        .where(invitations.c.digest == digest_of(token), invitations.c.expires_at > func.now(), _is_open())
        .values(accepted_at=func.now())
    )
    return accepted.rowcount == 1


def revoke_invitation(connection: Connection, invitation_id: UUID) -> None:
    """Nobody can accept it any more."""
    connection.execute(
        update(invitations).where(invitations.c.id == invitation_id, _is_open()).values(revoked_at=func.now())
    )


def count_sent(connection: Connection, practice_id: UUID, *, within_s: float) -> int:
    """How many invitations of the practice were mailed lately, whatever became of them."""
    sent = (invitations.c.practice_id == practice_id, invitations.c.sent_at > func.now() - interval(within_s))
    return connection.scalar(select(func.count()).select_from(invitations).where(*sent)) or 0


def _is_open() -> ColumnElement[bool]:
    return and_(invitations.c.accepted_at.is_(None), invitations.c.revoked_at.is_(None))
