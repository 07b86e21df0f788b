"""A person logs in: throttled, the same answer and the same time for an unknown e-mail and a wrong password."""

from datetime import UTC, datetime

from sqlalchemy import Connection

from auth_service.auditing import FAILURE, Action, note
from auth_service.database import Database
from auth_service.email_verification import send_verification
from auth_service.exceptions import (
    EmailNotVerifiedError,
    SecondFactorRequiredError,
    WrongCodeError,
    WrongCredentialsError,
)
from auth_service.mailing import announce, readable
from auth_service.models.sessions import LogInBody
from auth_service.origin import Origin
from auth_service.passwords import PasswordHasher
from auth_service.second_factor import SecondFactors
from auth_service.sessions import Sessions, Tokens
from auth_service.storage import accounts, devices, people, practices
from auth_service.storage.accounts import Account
from auth_service.throttle import LoginThrottle
from shared.errors import PracticeSuspendedError
from shared.events import DEVICE_SEEN


class LoggingIn:
    """Checks passwords and codes, and opens sessions."""

    def __init__(
        self,
        database: Database,
        *,
        hasher: PasswordHasher,
        throttle: LoginThrottle,
        sessions: Sessions,
        second_factors: SecondFactors,
        unverified_may_work: bool,
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._throttle = throttle
        self._sessions = sessions
        self._second_factors = second_factors
        self._unverified_may_work = unverified_may_work

    async def log_in(self, body: LogInBody, *, origin: Origin) -> Tokens:
        """A session in the practice last used.

        Raises WrongCredentialsError, WrongCodeError, SecondFactorRequiredError, EmailNotVerifiedError,
        TooManyFailuresError, PracticeSuspendedError, HashingBusyError.
        """
        async with self._throttle.attempt(body.email_key, origin.address):
            account = await self._database.run(self._find, body.email_key)
            correct = await self._hasher.verify(body.password, account.password if account else None)
            if account is None or not correct:
                await self._database.run(self._note_failure, account, origin)
                raise WrongCredentialsError
            if account.practice_status in practices.AT_REST:
                raise PracticeSuspendedError
            if not (account.is_verified or self._unverified_may_work):
                await self._database.run(self._ask_to_verify, account, origin)
                raise EmailNotVerifiedError
            if account.has_second_factor and body.code is None:
                raise SecondFactorRequiredError
            new_hash = await self._hasher.hash(body.password) if self._hasher.is_outdated(account.password) else None
            tokens = await self._database.run(self._enter, account, body.code, new_hash, origin)
            if tokens is None:
                raise WrongCodeError
            return tokens

    def _find(self, email_key: str) -> Account | None:
        with self._database.reading.connect() as connection:
            return accounts.find_account(connection, email_key)

    def _note_failure(self, account: Account | None, origin: Origin) -> None:
        """For unknown people too, so that both take the same time."""
        with self._database.engine.begin() as connection:
            practice_id, person_id = (account.practice_id, account.person_id) if account else (None, None)
            note(connection, Action.LOGGED_IN, origin, practice_id=practice_id, person_id=person_id, outcome=FAILURE)

    def _ask_to_verify(self, account: Account, origin: Origin) -> None:
        with self._database.engine.begin() as connection:
            note(
                connection,
                Action.LOGGED_IN,
                origin,
                practice_id=account.practice_id,
                person_id=account.person_id,
                outcome=FAILURE,
                detail={"email": "not verified"},
            )
            person = people.lock_person(connection, account.person_id)
            if person is not None:
                send_verification(connection, person, account.practice_id, origin)

    def _enter(self, account: Account, code: str | None, new_hash: str | None, origin: Origin) -> Tokens | None:
        """The tokens of a new session; None for a wrong code. Raises WrongCredentialsError."""
        with self._database.engine.begin() as connection:
            if not accounts.hold_password(connection, account, to_change=new_hash is not None):
                raise WrongCredentialsError  # it was changed a moment ago
            if account.has_second_factor and not (
                code and self._second_factors.take_code(connection, account.person_id, code)
            ):
                note(
                    connection,
                    Action.LOGGED_IN,
                    origin,
                    practice_id=account.practice_id,
                    person_id=account.person_id,
                    outcome=FAILURE,
                    detail={"second_factor": "wrong code"},
                )
                return None
            if new_hash:
                accounts.replace_password(connection, account.person_id, old=account.password, new=new_hash)
            if devices.see_device(connection, account.person_id, origin.user_agent):
                self._announce_device(connection, account, origin)
            return self._sessions.open(connection, account, origin, second_factor=account.has_second_factor)

    def _announce_device(self, connection: Connection, account: Account, origin: Origin) -> None:
        announce(
            connection,
            DEVICE_SEEN,
            origin,
            practice_id=account.practice_id,
            name=account.name,
            email=account.email,
            at=readable(datetime.now(UTC)),
            address=origin.address or "unknown",
            device=origin.user_agent or "unknown",
        )
