"""A practice's policy, and whom a change of it concerns."""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import Connection, and_, func, select, update

from auth_service.schema import memberships, practices, sessions


def second_factor_roles(connection: Connection, practice_id: UUID) -> list[str]:
    """The roles of which the practice wants a second factor."""
    found: list[str] | None = connection.scalar(
        select(practices.c.second_factor_roles).where(practices.c.id == practice_id)
    )
    return found or []


def set_second_factor_roles(connection: Connection, practice_id: UUID, roles: Sequence[str]) -> None:
    """These, and no others."""
    connection.execute(
        update(practices)
        .where(practices.c.id == practice_id)
        .values(second_factor_roles=list(roles), updated_at=func.now())
    )


def live_sessions_of_roles(connection: Connection, practice_id: UUID, roles: Collection[str]) -> list[UUID]:
    """The sessions that work in the practice in one of these roles and have shown no second factor."""
    query = (
        select(sessions.c.id)
        .join(
            memberships,
            and_(
                memberships.c.person_id == sessions.c.person_id,
                memberships.c.practice_id == sessions.c.practice_id,
            ),
        )
        .where(
            sessions.c.practice_id == practice_id,
            sessions.c.revoked_at.is_(None),
            sessions.c.expires_at > func.now(),
            sessions.c.second_factor_at.is_(None),
            memberships.c.role.in_(list(roles)),
        )
    )
    return list(connection.scalars(query))
