"""Whose an address is: shown by a token that was sent there."""

from uuid import UUID

from sqlalchemy import Connection

from auth_service.auditing import FAILURE, Action, note
from auth_service.database import Database
from auth_service.exceptions import MailTokenError, NoSessionError, TooManyMailsError
from auth_service.mailing import announce
from auth_service.origin import Origin
from auth_service.storage import accounts, mail_tokens, people
from auth_service.storage.mail_tokens import Purpose
from auth_service.storage.people import Person
from shared.events import EMAIL_UNVERIFIED

MAILS_WITHIN_S = 600
MOST_MAILS = 5


class EmailVerification:
    """Sends tokens and takes them back."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def verify(self, token: str, origin: Origin) -> None:
        """The token's address is its owner's from now on. Raises MailTokenError."""
        if not await self._database.run(self._verify, token, origin):
            raise MailTokenError

    async def send_again(self, origin: Origin) -> None:
        """Another mail to the caller; none when the address is verified. Raises NoSessionError, TooManyMailsError."""
        if origin.person_id is None or origin.practice_id is None:
            raise NoSessionError
        await self._database.run(self._send_again, origin.person_id, origin.practice_id, origin)

    def _verify(self, token: str, origin: Origin) -> bool:
        with self._database.engine.begin() as connection:
            found = mail_tokens.use_token(connection, token, Purpose.VERIFY_EMAIL)
            if found is None or not people.mark_verified(connection, found.person_id, email_key=found.email_key):
                note(connection, Action.EMAIL_VERIFIED, origin, outcome=FAILURE)
                return False
            account = accounts.find_account(connection, found.email_key)
            practice_id = account.practice_id if account else None
            note(connection, Action.EMAIL_VERIFIED, origin, practice_id=practice_id, person_id=found.person_id)
            return True

    def _send_again(self, person_id: UUID, practice_id: UUID, origin: Origin) -> None:
        with self._database.engine.begin() as connection:
            person = people.lock_person(connection, person_id)
            if person is None:
                raise NoSessionError
            if not person.is_verified and not send_verification(connection, person, practice_id, origin):
                raise TooManyMailsError(retry_after_s=MAILS_WITHIN_S)


def send_verification(connection: Connection, person: Person, practice_id: UUID, origin: Origin) -> bool:
    """Mails a token to a locked person, within the caller's transaction; false when that was done often enough."""
    asked = mail_tokens.count_tokens(connection, person.id, Purpose.VERIFY_EMAIL, within_s=MAILS_WITHIN_S)
    if asked >= MOST_MAILS:
        return False
    token = mail_tokens.add_token(connection, Purpose.VERIFY_EMAIL, person_id=person.id, email_key=person.email_key)
    announce(
        connection,
        EMAIL_UNVERIFIED,
        origin,
        practice_id=practice_id,
        name=person.name,
        email=person.email,
        token=token,
    )
    note(connection, Action.VERIFICATION_SENT, origin, practice_id=practice_id, person_id=person.id)
    return True
