"""Sessions: opened by a log-in, carried on by refreshing, ended by logging out or by a stolen token's re-use."""

from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy import Connection

from auth_service.auditing import FAILURE, Action, note
from auth_service.database import Database
from auth_service.exceptions import (
    EmailNotVerifiedError,
    InvalidRefreshTokenError,
    NoSessionError,
    UnknownPracticeError,
    UnknownSessionError,
)
from auth_service.origin import Origin
from auth_service.paging import Page, page_of, position_in
from auth_service.storage import accounts, changes, practices, sessions
from auth_service.storage.accounts import Account
from auth_service.storage.sessions import LiveSession, Session
from auth_service.tokens import AccessTokens, RefreshTokens
from shared.changes import SESSION_REVOKED
from shared.errors import PracticeSuspendedError
from shared.ids import new_id
from shared.logs import get_logger
from shared.roles import Permission

GRACE_S = 60
"""A refresh token serves once more so long after its rotation: parallel tabs, an answer that was lost."""
_log = get_logger()


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a client works with."""

    access: str
    refresh: str
    expires_in_s: int


class Sessions:
    """The life of sessions, in their table and in their tokens."""

    def __init__(
        self,
        database: Database,
        *,
        access_tokens: AccessTokens,
        refresh_tokens: RefreshTokens,
        life_s: int,
        unverified_may_work: bool,
    ) -> None:
        self._database = database
        self._access_tokens = access_tokens
        self._refresh_tokens = refresh_tokens
        self._life_s = life_s
        self._unverified_may_work = unverified_may_work

    def open(
        self,
        connection: Connection,
        account: Account,
        origin: Origin,
        *,
        second_factor: bool,
        action: Action = Action.LOGGED_IN,
    ) -> Tokens:
        """A new session, within the caller's transaction; `second_factor` says whether one was shown.

        Raises EmailNotVerifiedError.
        """
        self._admit(account)
        session_id = new_id()
        sessions.insert_session(
            connection,
            session_id,
            account=account,
            life_s=self._life_s,
            user_agent=origin.user_agent,
            address=origin.address,
            second_factor=second_factor,
        )
        note(
            connection,
            action,
            origin,
            practice_id=account.practice_id,
            person_id=account.person_id,
            target=str(session_id),
        )
        is_limited = account.needs_second_factor and not second_factor
        return self._tokens(account, session_id, generation=0, is_limited=is_limited)

    async def refresh(self, token: str, origin: Origin) -> Tokens:
        """The next tokens; a re-used one ends its session.

        Raises InvalidRefreshTokenError, PracticeSuspendedError, EmailNotVerifiedError.
        """
        session_id, generation = self._refresh_tokens.read(token)
        session = await self._database.run(self._rotate, session_id, generation, origin)
        if session is None:
            raise InvalidRefreshTokenError
        return self._tokens(session, session_id, generation=session.generation, is_limited=session.lacks_second_factor)

    async def end(self, origin: Origin) -> None:
        """Ends the caller's own session; ending it twice is no error. Raises NoSessionError."""
        if origin.session_id is None:
            raise NoSessionError
        await self._database.run(self._end, origin.session_id, origin)

    async def switch(self, practice_id: UUID, origin: Origin) -> Tokens:
        """Another session, in another practice of the caller; the one that asks goes on.

        Raises NoSessionError, UnknownPracticeError, PracticeSuspendedError, EmailNotVerifiedError.
        """
        person_id = _person_of(origin)
        return await self._database.run(self._switch, person_id, practice_id, origin)

    async def list_own(self, origin: Origin, *, limit: int, cursor: str | None) -> Page[LiveSession]:
        """The caller's live sessions, in all practices. Raises NoSessionError, MalformedCursorError."""
        return await self._database.run(self._list, _person_of(origin), origin.session_id, limit, position_in(cursor))

    async def end_one(self, session_id: UUID, origin: Origin) -> None:
        """Ends one of the caller's sessions. Raises NoSessionError, UnknownSessionError."""
        if not await self._database.run(self._end_own, _person_of(origin), session_id, origin):
            raise UnknownSessionError

    async def end_all(self, origin: Origin) -> None:
        """Ends all of the caller's sessions, this one too. Raises NoSessionError."""
        await self._database.run(self._end_own, _person_of(origin), None, origin)

    def _switch(self, person_id: UUID, practice_id: UUID, origin: Origin) -> Tokens:
        with self._database.engine.begin() as connection:
            assert origin.session_id is not None
            asking = sessions.lock_session(connection, origin.session_id, grace_s=GRACE_S)
            if asking is None or not asking.is_alive:
                raise NoSessionError  # it ended a moment ago
            account = accounts.find_account_in(connection, person_id, practice_id)
            if account is None:
                raise UnknownPracticeError
            if account.practice_status in practices.AT_REST:
                raise PracticeSuspendedError
            return self.open(
                connection, account, origin, second_factor=asking.has_second_factor, action=Action.SWITCHED
            )

    def _list(self, person_id: UUID, current: UUID | None, limit: int, before: UUID | None) -> Page[LiveSession]:
        with self._database.engine.begin() as connection:
            found = sessions.list_live(connection, person_id, current=current, before=before, limit=limit + 1)
        return page_of(found, limit, lambda session: session.id)

    def _end_own(self, person_id: UUID, session_id: UUID | None, origin: Origin) -> bool:
        with self._database.engine.begin() as connection:
            ended = sessions.revoke_sessions(connection, person_id, only=session_id)
            if session_id and not ended:
                return False
            action = Action.SESSION_ENDED if session_id else Action.SESSIONS_ENDED
            note(connection, action, origin, target=str(session_id) if session_id else None)
            for one, practice_id in ended:
                changes.add_session_changes(connection, SESSION_REVOKED, [one], practice_id=practice_id)
            return True

    def _rotate(self, session_id: UUID, generation: int, origin: Origin) -> Session | None:
        """The session with the generation that is valid now; None when the token is worth nothing."""
        with self._database.engine.begin() as connection:
            session = sessions.lock_session(connection, session_id, grace_s=GRACE_S)
            if session is None or not session.is_alive:
                return None
            if session.practice_status in practices.AT_REST:
                raise PracticeSuspendedError
            self._admit(session)
            if generation == session.generation:
                sessions.rotate_session(connection, session_id, life_s=self._life_s, address=origin.address)
                return replace(session, generation=generation + 1)
            if generation == session.generation - 1 and session.is_in_grace:
                return session
            # two parties hold tokens of this session, and one of them stole them (RFC 9700, 4.14.2)
            _log.warning("refresh_token_reused", session_id=str(session_id), practice_id=str(session.practice_id))
            note(
                connection,
                Action.REFRESH_REUSED,
                origin,
                practice_id=session.practice_id,
                person_id=session.person_id,
                outcome=FAILURE,
                target=str(session_id),
            )
            _revoke(connection, session_id)
            return None

    def _end(self, session_id: UUID, origin: Origin) -> None:
        with self._database.engine.begin() as connection:
            note(connection, Action.LOGGED_OUT, origin, target=str(session_id))
            _revoke(connection, session_id)

    def _admit(self, holder: Account | Session) -> None:
        if not (holder.is_verified or self._unverified_may_work):
            raise EmailNotVerifiedError

    def _tokens(self, holder: Account | Session, session_id: UUID, *, generation: int, is_limited: bool) -> Tokens:
        """`is_limited`: good for the own account only, until a second factor is set up."""
        access = self._access_tokens.issue(
            person_id=holder.person_id,
            practice_id=holder.practice_id,
            session_id=session_id,
            role=holder.role,
            scope=Permission.ACCOUNT_MANAGE if is_limited else "",
        )
        refresh = self._refresh_tokens.write(session_id, generation)
        return Tokens(access=access, refresh=refresh, expires_in_s=self._access_tokens.life_s)


def _revoke(connection: Connection, session_id: UUID) -> None:
    practice_id = sessions.revoke_session(connection, session_id)
    if practice_id:
        changes.add_change(connection, SESSION_REVOKED, practice_id=practice_id, session_id=session_id)


def _person_of(origin: Origin) -> UUID:
    if origin.person_id is None:
        raise NoSessionError
    return origin.person_id
