"""The platform's admin works with a token, too: short-lived, never refreshed, ended at will.

The gateway checks the name and the password (HTTP Basic) before anything here is called.
"""

from uuid import UUID

from auth_service.auditing import Action, note
from auth_service.database import Database
from auth_service.exceptions import NoSessionError
from auth_service.origin import Origin
from auth_service.storage import changes
from auth_service.tokens import AccessTokens
from shared.changes import SESSION_REVOKED
from shared.ids import new_id


class AdminSessions:
    """Opened and ended; nothing of them is stored but the audit, since a token tells all."""

    def __init__(self, database: Database, *, access_tokens: AccessTokens) -> None:
        self._database = database
        self._access_tokens = access_tokens

    async def open(self, origin: Origin) -> str:
        """An access token."""
        session_id = new_id()
        await self._database.run(self._note, session_id, origin)
        return self._access_tokens.issue_admin(session_id)

    async def end(self, origin: Origin) -> None:
        """Gateways refuse the caller's token within seconds. Raises NoSessionError."""
        if not origin.caller.session_id:
            raise NoSessionError
        await self._database.run(self._end, UUID(origin.caller.session_id), origin)

    def _note(self, session_id: UUID, origin: Origin) -> None:
        with self._database.engine.begin() as connection:
            note(connection, Action.LOGGED_IN, origin, target=str(session_id))

    def _end(self, session_id: UUID, origin: Origin) -> None:
        with self._database.engine.begin() as connection:
            note(connection, Action.LOGGED_OUT, origin, target=str(session_id))
            changes.add_session_changes(connection, SESSION_REVOKED, [session_id], practice_id=None)
