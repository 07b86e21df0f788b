"""A practice is suspended and resumed by the platform's admin. Its sessions rest meanwhile; none of them ends."""

from dataclasses import replace
from uuid import UUID

from auth_service.auditing import Action, note
from auth_service.database import Database
from auth_service.exceptions import PracticeNotActiveError, UnknownPracticeError
from auth_service.origin import Origin
from auth_service.storage import changes, practices
from auth_service.storage.practices import ACTIVE, SUSPENDED, Practice
from shared.changes import PRACTICE_RESUMED, PRACTICE_SUSPENDED
from shared.logs import get_logger

_NEWS = {
    SUSPENDED: (PRACTICE_SUSPENDED, Action.PRACTICE_SUSPENDED),
    ACTIVE: (PRACTICE_RESUMED, Action.PRACTICE_RESUMED),
}
"""What gateways and the audit are told of each new status."""
_log = get_logger()


class Suspension:
    """Both deeds. Done twice they change nothing; both raise UnknownPracticeError and PracticeNotActiveError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def suspend(self, practice_id: UUID, origin: Origin) -> Practice:
        """Refuses every call of the practice from now on: here at once, at the gateways after their next poll."""
        return await self._database.run(self._change, practice_id, SUSPENDED, origin)

    async def resume(self, practice_id: UUID, origin: Origin) -> Practice:
        """Lets the practice in again, with the tokens that it has."""
        return await self._database.run(self._change, practice_id, ACTIVE, origin)

    def _change(self, practice_id: UUID, status: str, origin: Origin) -> Practice:
        kind, action = _NEWS[status]
        with self._database.engine.begin() as connection:
            practice = practices.lock_practice(connection, practice_id)
            if practice is None:
                raise UnknownPracticeError
            if practice.status not in {ACTIVE, SUSPENDED}:
                raise PracticeNotActiveError(f"This practice is {practice.status}.")
            if practice.status == status:
                return practice
            practices.change_status(connection, practice_id, status)
            note(connection, action, origin, practice_id=practice_id)
            changes.add_change(connection, kind, practice_id=practice_id, session_id=None)
        _log.info(kind.replace("-", "_"), practice_id=str(practice_id))
        return replace(practice, status=status)
