"""Another password: for whoever forgot it, by a token sent by mail, and for whoever knows it."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from auth_service.address_limit import AddressLimit
from auth_service.auditing import FAILURE, SUCCESS, Action, note
from auth_service.common_passwords import is_one_of
from auth_service.database import Database
from auth_service.exceptions import GuessablePasswordError, MailTokenError, NoSessionError, WrongCredentialsError
from auth_service.mailing import announce, readable
from auth_service.origin import Origin
from auth_service.passwords import PasswordHasher
from auth_service.storage import accounts, changes, mail_tokens, people, sessions
from auth_service.storage.accounts import Account
from auth_service.storage.mail_tokens import Purpose
from auth_service.storage.people import Person
from auth_service.throttle import LoginThrottle
from shared.changes import SESSION_REVOKED
from shared.errors import ServiceError
from shared.events import PASSWORD_CHANGED, PASSWORD_FORGOTTEN
from shared.logs import describe_fault, get_logger

MAILS_WITHIN_S = 600
MOST_MAILS = 5
"""To one person: more would only annoy, whoever asks for them."""
_log = get_logger()


class PasswordChange:
    """Forgotten, set anew, changed."""

    def __init__(
        self, database: Database, *, hasher: PasswordHasher, throttle: LoginThrottle, limit: AddressLimit
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._throttle = throttle
        self._limit = limit
        self._sending: set[asyncio.Task[None]] = set()

    async def forgot(self, email_key: str, origin: Origin) -> None:
        """Mails a token, if the address is somebody's. Raises TooManyCallsError.

        What only known addresses cost is done after the answer, so that its time tells nothing.
        """
        await self._limit.admit(origin.address)
        account = await self._database.run(self._find, email_key)
        self._begin(self._send(email_key, account, origin))

    async def reset(self, token: str, password: str, origin: Origin) -> None:
        """The token's owner has this password, and no session any more.

        Raises MailTokenError, GuessablePasswordError, HashingBusyError.
        """
        # before the hash, which is dear: a flood of wrong tokens must not keep log-ins waiting
        person = await self._database.run(self._find_owner, token, origin)
        if person is None:
            raise MailTokenError
        _refuse_guessable(password, person)
        hashed = await self._hasher.hash(password)
        if not await self._database.run(self._reset, token, hashed, origin):
            raise MailTokenError

    async def change(self, current: str, password: str, origin: Origin) -> None:
        """The caller has another password and only this session.

        Raises NoSessionError, WrongCredentialsError, TooManyFailuresError, GuessablePasswordError, HashingBusyError.
        """
        person = await self._database.run(self._find_person, origin.person_id)
        if person is None:
            raise NoSessionError
        async with self._throttle.attempt(person.email_key, origin.address):
            if not await self._hasher.verify(current, person.password):
                await self._database.run(self._note_failure, origin)
                raise WrongCredentialsError
        _refuse_guessable(password, person)
        hashed = await self._hasher.hash(password)
        if not await self._database.run(self._change, person, hashed, origin):
            raise WrongCredentialsError  # somebody changed it meanwhile

    async def close(self) -> None:
        """Waits for mails that are being prepared."""
        await asyncio.gather(*self._sending, return_exceptions=True)

    def _begin(self, sending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(sending)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, email_key: str, account: Account | None, origin: Origin) -> None:
        try:
            if account is None:
                await self._database.run(self._note_unknown, origin)
            else:
                await self._database.run(self._prepare_mail, email_key, account.practice_id, origin)
        except (ServiceError, SQLAlchemyError) as fault:  # the person will ask again
            _log.warning("password_mail_not_prepared", **describe_fault(fault))

    def _find(self, email_key: str) -> Account | None:
        with self._database.engine.begin() as connection:
            return accounts.find_account(connection, email_key)

    def _find_person(self, person_id: UUID | None) -> Person | None:
        if person_id is None:
            return None
        with self._database.engine.begin() as connection:
            return people.find_person(connection, person_id)

    def _note_unknown(self, origin: Origin) -> None:
        with self._database.engine.begin() as connection:
            note(connection, Action.PASSWORD_FORGOTTEN, origin, outcome=FAILURE)

    def _find_owner(self, token: str, origin: Origin) -> Person | None:
        with self._database.engine.begin() as connection:
            found = mail_tokens.find_token(connection, token, Purpose.RESET_PASSWORD)
            if found is None:
                note(connection, Action.PASSWORD_RESET, origin, outcome=FAILURE)
                return None
            return people.find_person(connection, found.person_id)

    def _prepare_mail(self, email_key: str, practice_id: UUID, origin: Origin) -> None:
        with self._database.engine.begin() as connection:
            found = people.find_person_by_email(connection, email_key)
            # locked, so that of several calls at once one counts what the others sent
            person = people.lock_person(connection, found.id) if found else None
            if person is None:
                return
            asked = mail_tokens.count_tokens(connection, person.id, Purpose.RESET_PASSWORD, within_s=MAILS_WITHIN_S)
            if asked >= MOST_MAILS:
                outcome = FAILURE
            else:
                outcome = SUCCESS
                _mail_token(connection, person, practice_id, origin)
            note(
                connection,
                Action.PASSWORD_FORGOTTEN,
                origin,
                practice_id=practice_id,
                person_id=person.id,
                outcome=outcome,
            )

    def _reset(self, token: str, hashed: str, origin: Origin) -> bool:
        with self._database.engine.begin() as connection:
            used = mail_tokens.use_token(connection, token, Purpose.RESET_PASSWORD)
            person = people.lock_person(connection, used.person_id) if used else None
            # the mail came to the address: so it is the person's
            if (
                used is None
                or person is None
                or not people.mark_verified(connection, person.id, email_key=used.email_key)
            ):
                return False
            account = accounts.find_account(connection, person.email_key)
            practice_id = account.practice_id if account else None
            note(connection, Action.PASSWORD_RESET, origin, practice_id=practice_id, person_id=person.id)
            _replace(connection, person, hashed, origin, practice_id=practice_id)
            return True

    def _change(self, known: Person, hashed: str, origin: Origin) -> bool:
        with self._database.engine.begin() as connection:
            person = people.lock_person(connection, known.id)
            if person is None or person.password != known.password:
                return False
            note(connection, Action.PASSWORD_CHANGED, origin)
            _replace(connection, person, hashed, origin, practice_id=origin.practice_id, but=origin.session_id)
            return True

    def _note_failure(self, origin: Origin) -> None:
        with self._database.engine.begin() as connection:
            note(connection, Action.PASSWORD_CHANGED, origin, outcome=FAILURE)


def _refuse_guessable(password: str, person: Person) -> None:
    if is_one_of(password, person.email, person.name):
        raise GuessablePasswordError


def _mail_token(connection: Connection, person: Person, practice_id: UUID, origin: Origin) -> None:
    """The only good token of a locked person, in a mail."""
    purpose = Purpose.RESET_PASSWORD
    mail_tokens.revoke_tokens(connection, person.id, purpose)
    token = mail_tokens.add_token(connection, purpose, person_id=person.id, email_key=person.email_key)
    named = {"name": person.name, "email": person.email}
    announce(connection, PASSWORD_FORGOTTEN, origin, practice_id=practice_id, **named, token=token)


def _replace(
    connection: Connection,
    person: Person,
    hashed: str,
    origin: Origin,
    *,
    practice_id: UUID | None,
    but: UUID | None = None,
) -> None:
    """Stores the hash of a locked person, ends sessions and tokens, tells the person."""
    accounts.replace_password(connection, person.id, old=person.password, new=hashed)
    mail_tokens.revoke_tokens(connection, person.id, Purpose.RESET_PASSWORD)
    if practice_id is not None:
        announce(
            connection,
            PASSWORD_CHANGED,
            origin,
            practice_id=practice_id,
            name=person.name,
            email=person.email,
            at=readable(datetime.now(UTC)),
            address=origin.address or "an unknown address",
        )
    for session_id, of_practice in sessions.revoke_sessions(connection, person.id, but=but):
        changes.add_session_changes(connection, SESSION_REVOKED, [session_id], practice_id=of_practice)
