"""A person logs in: throttled, the same answer and the same time for an unknown e-mail and a wrong password."""

from auth_service.auditing import FAILURE, Action, note
from auth_service.database import Database
from auth_service.exceptions import WrongCredentialsError
from auth_service.models.sessions import LogInBody
from auth_service.origin import Origin
from auth_service.passwords import PasswordHasher
from auth_service.sessions import Sessions, Tokens
from auth_service.storage import accounts, practices
from auth_service.storage.accounts import Account
from auth_service.throttle import LoginThrottle
from shared.errors import PracticeSuspendedError


class LoggingIn:
    """Checks passwords and opens sessions."""

    def __init__(
        self, database: Database, *, hasher: PasswordHasher, throttle: LoginThrottle, sessions: Sessions
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._throttle = throttle
        self._sessions = sessions

    async def log_in(self, body: LogInBody, *, origin: Origin) -> Tokens:
        """A session in the practice last used.

        Raises WrongCredentialsError, TooManyFailuresError, PracticeSuspendedError, HashingBusyError.
        """
        async with self._throttle.attempt(body.email_key, origin.address):
            account = await self._database.run(self._find, body.email_key)
            correct = await self._hasher.verify(body.password, account.password if account else None)
            if account is None or not correct:
                await self._database.run(self._note_failure, account, origin)
                raise WrongCredentialsError
        if account.practice_status == practices.SUSPENDED:
            raise PracticeSuspendedError
        new_hash = await self._hasher.hash(body.password) if self._hasher.is_outdated(account.password) else None
        return await self._database.run(self._enter, account, new_hash, origin)

    def _find(self, email_key: str) -> Account | None:
        with self._database.engine.begin() as connection:
            return accounts.find_account(connection, email_key)

    def _note_failure(self, account: Account | None, origin: Origin) -> None:
        """For unknown people too, so that both take the same time."""
        with self._database.engine.begin() as connection:
            practice_id, person_id = (account.practice_id, account.person_id) if account else (None, None)
            note(connection, Action.LOGGED_IN, origin, practice_id=practice_id, person_id=person_id, outcome=FAILURE)

    def _enter(self, account: Account, new_hash: str | None, origin: Origin) -> Tokens:
        with self._database.engine.begin() as connection:
            if new_hash:
                accounts.replace_password(connection, account.person_id, old=account.password, new=new_hash)
            return self._sessions.open(connection, account, origin)
