"""A practice is closed: a time to think better of it, then everything that it stored is destroyed, and that is signed.

tenant-service destroys the data first; only then do the practice's people and its name go from here. What is
interrupted is done again from the beginning, which finds what is gone.
"""

import time
from dataclasses import asdict
from datetime import UTC, datetime
from uuid import UUID

from auth_service.auditing import Action, note
from auth_service.database import Database
from auth_service.exceptions import (
    DeletionRecordUnknownError,
    PracticeNotActiveError,
    PracticeNotClosingError,
    ShardUnavailableError,
    UnknownPracticeError,
)
from auth_service.origin import Origin, origin_of
from auth_service.shards import Erased, Exported, Shards
from auth_service.storage import audit, changes, closing, practices
from auth_service.storage.closing import Closure
from auth_service.storage.practices import ACTIVE, CLOSING, SUSPENDED, Practice
from auth_service.tokens import AccessTokens
from shared.changes import PRACTICE_RESUMED, PRACTICE_SUSPENDED, SESSION_REVOKED
from shared.context import Caller
from shared.logs import get_logger

EVERY_S = 30.0
_BATCH = 20
_MOST_AUDIT_ENTRIES = 50_000
"""In an export; the newest."""
_ITSELF = origin_of(Caller(role="service:auth-service"), user_agent="", request_id="")
_log = get_logger()


class Closing:
    """Closes, thinks better of it, exports, and destroys when the time is over."""

    def __init__(self, database: Database, *, shards: Shards, tokens: AccessTokens, grace_s: float) -> None:
        """`grace_s`: how long a closing can be undone."""
        self._database = database
        self._shards = shards
        self._tokens = tokens
        self._grace_s = grace_s

    async def close(self, practice_id: UUID, origin: Origin) -> Closure:
        """Refuses every call of the practice from now on; its data stays until the time is over.

        Done twice, the time doesn't begin anew. Raises UnknownPracticeError, PracticeNotActiveError.
        """
        return await self._database.run(self._close, practice_id, origin)

    async def undo(self, practice_id: UUID, origin: Origin) -> Practice:
        """The practice goes on as what it was. Raises UnknownPracticeError, PracticeNotClosingError."""
        return await self._database.run(self._undo, practice_id, origin)

    async def export(self, practice_id: UUID, folder: str, origin: Origin) -> Exported:
        """Has everything written that the practice takes with it, into a folder on tenant-service's machine.

        Raises UnknownPracticeError, ExportRefusedError, ShardUnavailableError.
        """
        practice, entries = await self._database.run(self._collect, practice_id)
        exported = await self._shards.export(practice_id, to=folder, practice=practice, audit=entries)
        await self._database.run(self._note_export, practice_id, origin)
        return exported

    async def record(self, practice_id: UUID) -> str:
        """The signed record of a deletion. Raises DeletionRecordUnknownError."""
        found = await self._database.run(self._find_record, practice_id)
        if found is None:
            raise DeletionRecordUnknownError
        return found

    async def sweep(self) -> None:
        """Destroys what is overdue. Raises UnavailableError; what tenant-service can't destroy now waits."""
        for practice_id in await self._database.run(self._overdue):
            try:
                erased = await self._shards.erase(practice_id)
            except ShardUnavailableError:
                continue
            await self._database.run(self._finish, practice_id, erased)

    def _close(self, practice_id: UUID, origin: Origin) -> Closure:
        with self._database.engine.begin() as connection:
            practice = practices.lock_practice(connection, practice_id)
            if practice is None:
                raise UnknownPracticeError
            if practice.status == CLOSING and (known := closing.find_closure(connection, practice_id)):
                return known
            if practice.status not in {ACTIVE, SUSPENDED}:
                raise PracticeNotActiveError(f"This practice is {practice.status}.")
            begun = closing.begin_closing(connection, practice_id, status_before=practice.status, grace_s=self._grace_s)
            note(connection, Action.PRACTICE_CLOSING, origin, practice_id=practice_id)
            changes.add_change(connection, PRACTICE_SUSPENDED, practice_id=practice_id, session_id=None)
        _log.info("practice_closing", practice_id=str(practice_id), until=begun.until.isoformat())
        return begun

    def _undo(self, practice_id: UUID, origin: Origin) -> Practice:
        with self._database.engine.begin() as connection:
            practice = practices.lock_practice(connection, practice_id)
            if practice is None:
                raise UnknownPracticeError
            begun = closing.find_closure(connection, practice_id)
            if begun is None:
                raise PracticeNotClosingError(f"This practice is {practice.status}.")
            if begun.until <= datetime.now(UTC):
                raise PracticeNotClosingError("The time to undo it is over.")
            closing.end_closing(connection, practice_id, status=begun.status_before)
            note(connection, Action.CLOSING_UNDONE, origin, practice_id=practice_id)
            if begun.status_before == ACTIVE:
                changes.add_change(connection, PRACTICE_RESUMED, practice_id=practice_id, session_id=None)
            found = practices.find_practice(connection, practice_id)
            assert found
        _log.info("closing_undone", practice_id=str(practice_id))
        return found

    def _collect(self, practice_id: UUID) -> tuple[dict[str, object], list[dict[str, object]]]:
        with self._database.engine.begin() as connection:
            practice = practices.find_practice(connection, practice_id)
            if practice is None or practice.status not in practices.EXISTING:
                raise UnknownPracticeError
            entries = audit.list_entries(
                connection,
                equal={"practice_id": practice_id},
                since=None,
                until=None,
                before=None,
                limit=_MOST_AUDIT_ENTRIES,
            )
        return asdict(practice), [asdict(entry) for entry in entries]

    def _note_export(self, practice_id: UUID, origin: Origin) -> None:
        with self._database.engine.begin() as connection:
            note(connection, Action.PRACTICE_EXPORTED, origin, practice_id=practice_id)

    def _find_record(self, practice_id: UUID) -> str | None:
        with self._database.engine.begin() as connection:
            return closing.find_record(connection, practice_id)

    def _overdue(self) -> list[UUID]:
        with self._database.engine.begin() as connection:
            return closing.overdue(connection, limit=_BATCH)

    def _finish(self, practice_id: UUID, erased: Erased) -> None:
        with self._database.engine.begin() as connection:
            practice = practices.lock_practice(connection, practice_id)
            if practice is None or practice.status != CLOSING:
                return  # another replica's turn
            people, sessions = closing.erase_practice(connection, practice_id)
            facts = {
                "practice": str(practice_id),
                "database": practice.database_name,
                "backup_files": erased.backup_files,
                "backup_key": "destroyed",
                "people": people,
                "erased_at": int(time.time()),
            }
            closing.insert_record(connection, practice_id, self._tokens.sign_deletion(facts))
            note(connection, Action.PRACTICE_CLOSED, _ITSELF, practice_id=practice_id)
            changes.add_session_changes(connection, SESSION_REVOKED, sessions, practice_id=practice_id)
        _log.info("practice_closed", practice_id=str(practice_id))
