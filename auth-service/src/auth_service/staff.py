"""Who works in a practice: listed, given another role, removed. There is always an owner."""

from uuid import UUID

from sqlalchemy import Connection

from auth_service.auditing import Action, note
from auth_service.database import Database
from auth_service.exceptions import LastOwnerError, NoSessionError, UnknownStaffError
from auth_service.origin import Origin
from auth_service.paging import Page, page_of, position_in
from auth_service.storage import changes, practices, sessions, staff
from auth_service.storage.practices import EXISTING
from auth_service.storage.staff import Member, Workplace
from shared.changes import SESSION_CHANGED, SESSION_REVOKED
from shared.roles import OWNER


class Staff:
    """The members of the caller's practice. Another practice's are unknown here."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, origin: Origin, *, limit: int, cursor: str | None) -> Page[Member]:
        """Some of the members. Raises NoSessionError, MalformedCursorError."""
        return await self._database.run(self._page, _practice_of(origin), limit, position_in(cursor))

    async def workplaces(self, origin: Origin) -> list[Workplace]:
        """The practices that the caller works in. Raises NoSessionError."""
        return await self._database.run(self._workplaces, origin)

    async def change_role(self, person_id: UUID, role: str, origin: Origin) -> Member:
        """The member with the new role; tokens that name the old one are refused within seconds.

        Raises NoSessionError, UnknownStaffError, LastOwnerError.
        """
        return await self._database.run(self._change_role, _practice_of(origin), person_id, role, origin)

    async def remove(self, person_id: UUID, origin: Origin) -> None:
        """Ends the membership, and the sessions in this practice. Raises as change_role."""
        await self._database.run(self._remove, _practice_of(origin), person_id, origin)

    def _page(self, practice_id: UUID, limit: int, after: UUID | None) -> Page[Member]:
        with self._database.engine.begin() as connection:
            found = staff.list_members(connection, practice_id, after=after, limit=limit + 1)
        return page_of(found, limit, lambda member: member.id)

    def _workplaces(self, origin: Origin) -> list[Workplace]:
        if origin.person_id is None:
            raise NoSessionError
        with self._database.engine.begin() as connection:
            return staff.list_workplaces(connection, origin.person_id, EXISTING)

    def _change_role(self, practice_id: UUID, person_id: UUID, role: str, origin: Origin) -> Member:
        with self._database.engine.begin() as connection:
            member = _locked(connection, practice_id, person_id)
            if member.role != role:
                _keep_an_owner(connection, practice_id, member)
                staff.change_role(connection, practice_id, person_id, role)
                detail = {"from": member.role, "to": role}
                note(connection, Action.ROLE_CHANGED, origin, person_id=person_id, detail=detail)
                live = sessions.live_sessions_of(connection, practice_id, person_id=person_id)
                changes.add_session_changes(connection, SESSION_CHANGED, live, practice_id=practice_id)
            changed = staff.find_member(connection, practice_id, person_id)
            assert changed is not None
            return changed

    def _remove(self, practice_id: UUID, person_id: UUID, origin: Origin) -> None:
        with self._database.engine.begin() as connection:
            member = _locked(connection, practice_id, person_id)
            _keep_an_owner(connection, practice_id, member)
            ended = sessions.revoke_sessions(connection, person_id, practice_id=practice_id)
            staff.remove_member(connection, practice_id, person_id)
            note(connection, Action.STAFF_REMOVED, origin, person_id=person_id, detail={"role": member.role})
            live = [session_id for session_id, _ in ended]
            changes.add_session_changes(connection, SESSION_REVOKED, live, practice_id=practice_id)


def _practice_of(origin: Origin) -> UUID:
    if origin.practice_id is None:
        raise NoSessionError
    return origin.practice_id


def _locked(connection: Connection, practice_id: UUID, person_id: UUID) -> Member:
    """The member; the practice's lock keeps two owners from removing each other at once."""
    practices.lock_practice(connection, practice_id)
    member = staff.find_member(connection, practice_id, person_id)
    if member is None:
        raise UnknownStaffError
    return member


def _keep_an_owner(connection: Connection, practice_id: UUID, member: Member) -> None:
    if member.role == OWNER and staff.count_members(connection, practice_id, role=OWNER) == 1:
        raise LastOwnerError
