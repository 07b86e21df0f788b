"""What a practice demands of its people: of which roles it wants a second factor."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import Connection

from auth_service.auditing import Action, note
from auth_service.database import Database
from auth_service.exceptions import NoSecondFactorError, NoSessionError
from auth_service.origin import Origin
from auth_service.storage import changes, policies, practices, second_factors
from shared.changes import SESSION_CHANGED


class Policy:
    """The policy of the caller's practice."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def second_factor_roles(self, origin: Origin) -> list[str]:
        """The roles of which a second factor is wanted. Raises NoSessionError."""
        return await self._database.run(self._read, _practice_of(origin))

    async def want_second_factor(self, roles: Collection[str], origin: Origin) -> list[str]:
        """From now on of these roles, and of no others.

        Tokens that don't know it are refused within seconds. Raises NoSessionError, NoSecondFactorError for a caller
        who would be shut out by it.
        """
        return await self._database.run(self._want, _practice_of(origin), sorted(set(roles)), origin)

    def _read(self, practice_id: UUID) -> list[str]:
        with self._database.engine.begin() as connection:
            return policies.second_factor_roles(connection, practice_id)

    def _want(self, practice_id: UUID, roles: list[str], origin: Origin) -> list[str]:
        with self._database.engine.begin() as connection:
            practices.lock_practice(connection, practice_id)
            before = policies.second_factor_roles(connection, practice_id)
            if origin.caller.role in roles and not _has_factor(connection, origin.person_id):
                raise NoSecondFactorError("Set up your own second factor first.")
            policies.set_second_factor_roles(connection, practice_id, roles)
            note(connection, Action.POLICY_CHANGED, origin, detail={"second_factor_roles": roles})
            concerned = policies.live_sessions_of_roles(connection, practice_id, set(before) ^ set(roles))
            changes.add_session_changes(connection, SESSION_CHANGED, concerned, practice_id=practice_id)
        return roles


def _practice_of(origin: Origin) -> UUID:
    if origin.practice_id is None:
        raise NoSessionError
    return origin.practice_id


def _has_factor(connection: Connection, person_id: UUID | None) -> bool:
    factor = second_factors.find_factor(connection, person_id) if person_id else None
    return factor is not None and factor.is_confirmed
