"""Another password: for whoever forgot it, by a token sent by mail, and for whoever knows it."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from auth_service.address_limit import AddressLimit
from auth_service.auditing import FAILURE, Action, note
from auth_service.database import Database
from auth_service.exceptions import MailTokenError, NoSessionError, WrongCredentialsError
from auth_service.mailing import announce, readable
from auth_service.origin import Origin
from auth_service.passwords import PasswordHasher
from auth_service.storage import accounts, changes, mail_tokens, people, sessions
from auth_service.storage.accounts import Account
from auth_service.storage.mail_tokens import MailToken, Purpose
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
        self._limit.admit(origin.address)
        account = await self._database.run(self._find, email_key)
        if account is not None:
            self._begin(self._send(email_key, account, origin))

    async def reset(self, token: str, password: str, origin: Origin) -> None:
        """The token's owner has this password, and no session any more. Raises MailTokenError, HashingBusyError."""
        # before the hash, which is dear: a flood of wrong tokens must not keep log-ins waiting
        if await self._database.run(self._find_token, token) is None:
            raise MailTokenError
        hashed = await self._hasher.hash(password)
        if not await self._database.run(self._reset, token, hashed, origin):
            raise MailTokenError

    async def change(self, current: str, password: str, origin: Origin) -> None:
        """The caller has another password and only this session.

        Raises NoSessionError, WrongCredentialsError, TooManyFailuresError, HashingBusyError.
        """
        person = await self._database.run(self._find_person, origin.person_id)
        if person is None:
            raise NoSessionError
        async with self._throttle.attempt(person.email_key, origin.address):
            if not await self._hasher.verify(current, person.password):
                await self._database.run(self._note_failure, origin)
                raise WrongCredentialsError
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

    async def _send(self, email_key: str, account: Account, origin: Origin) -> None:
        try:
            await self._database.run(self._prepare_mail, email_key, account.practice_id, origin)
        except ServiceError as fault:  # the person will ask again
            _log.warning("password_mail_not_prepared", **describe_fault(fault))

    def _find(self, email_key: str) -> Account | None:
        with self._database.engine.begin() as connection:
            return accounts.find_account(connection, email_key)

    def _find_person(self, person_id: UUID | None) -> Person | None:
        if person_id is None:
            return None
        with self._database.engine.begin() as connection:
            return people.find_person(connection, person_id)

    def _find_token(self, token: str) -> MailToken | None:
        with self._database.engine.begin() as connection:
            return mail_tokens.find_token(connection, token, Purpose.RESET_PASSWORD)

    def _prepare_mail(self, email_key: str, practice_id: UUID, origin: Origin) -> None:
        with self._database.engine.begin() as connection:
            person = people.find_person_by_email(connection, email_key)
            if person is None:
                return
            purpose = Purpose.RESET_PASSWORD
            asked = mail_tokens.count_tokens(connection, person.id, purpose, within_s=MAILS_WITHIN_S)
            if asked >= MOST_MAILS:
                return
            mail_tokens.revoke_tokens(connection, person.id, purpose)
            token = mail_tokens.add_token(connection, purpose, person_id=person.id, email_key=email_key)
            named = {"name": person.name, "email": person.email}
            announce(connection, PASSWORD_FORGOTTEN, origin, practice_id=practice_id, **named, token=token)
            note(connection, Action.PASSWORD_FORGOTTEN, origin, practice_id=practice_id, person_id=person.id)

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
