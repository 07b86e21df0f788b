"""Joining a practice: a link by mail, good for 72 hours and one use.

Whether an invited e-mail is somebody's already is told to nobody but its owner.
"""

from functools import partial
from uuid import UUID

import psycopg2
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from auth_service.auditing import FAILURE, Action, note
from auth_service.common_passwords import is_one_of
from auth_service.database import Database
from auth_service.exceptions import (
    AlreadyMemberError,
    GuessablePasswordError,
    InvitationOpenError,
    MailTokenError,
    NoSessionError,
    TooManyInvitationsError,
    TooManyMailsError,
    UnknownInvitationError,
    WrongCredentialsError,
)
from auth_service.mailing import announce
from auth_service.models.common import require_new_password
from auth_service.models.staff import AcceptBody, InviteBody
from auth_service.origin import Origin
from auth_service.paging import Page, page_of, position_in
from auth_service.passwords import PasswordHasher
from auth_service.storage import people, practices, staff
from auth_service.storage.people import Person
from auth_service.storage.practices import AT_REST, EMAIL_CONSTRAINTS
from auth_service.storage.staff import Invitation
from auth_service.throttle import LoginThrottle
from auth_service.tokens import new_secret
from shared.errors import PracticeSuspendedError
from shared.events import STAFF_INVITED
from shared.ids import new_id

MOST_OPEN = 500
MAILS_WITHIN_S = 3600
MOST_MAILS = 100
"""Of one practice: nobody's mailbox is filled from here."""


class Invitations:
    """Sent, listed, sent again, revoked, accepted."""

    def __init__(self, database: Database, *, hasher: PasswordHasher, throttle: LoginThrottle) -> None:
        self._database = database
        self._hasher = hasher
        self._throttle = throttle

    async def invite(self, body: InviteBody, origin: Origin) -> Invitation:
        """A new invitation, and a mail.

        Raises NoSessionError, AlreadyMemberError, InvitationOpenError, TooManyInvitationsError, TooManyMailsError.
        """
        return await self._database.run(self._invite, body, *_inviter(origin), origin)

    async def page(self, origin: Origin, *, limit: int, cursor: str | None) -> Page[Invitation]:
        """Open invitations, expired ones too. Raises NoSessionError, MalformedCursorError."""
        practice_id, _ = _inviter(origin)
        return await self._database.run(self._page, practice_id, limit, position_in(cursor))

    async def send_again(self, invitation_id: UUID, origin: Origin) -> Invitation:
        """The invitation with a new token. Raises NoSessionError, UnknownInvitationError, TooManyMailsError."""
        return await self._database.run(self._send_again, invitation_id, _inviter(origin)[0], origin)

    async def revoke(self, invitation_id: UUID, origin: Origin) -> None:
        """Makes its token worthless. Raises NoSessionError, UnknownInvitationError."""
        practice_id, _ = _inviter(origin)
        await self._database.run(self._revoke, invitation_id, practice_id, origin)

    async def accept(self, body: AcceptBody, origin: Origin) -> Invitation:
        """What was accepted. A person who is known proves it by the password, a new one gets it.

        Raises MailTokenError, ValidationFailedError, WrongCredentialsError, TooManyFailuresError,
        PracticeSuspendedError, HashingBusyError.
        """
        # before any hash, which is dear: a flood of wrong tokens must not keep log-ins waiting
        invitation, known = await self._database.run(self._find, body.token)
        if known is None:
            if is_one_of(require_new_password(body.password), invitation.email, body.name):
                raise GuessablePasswordError
            hashed = await self._hasher.hash(body.password)
            person = Person(new_id(), body.name, invitation.email, invitation.email_key, hashed, is_verified=True)
            await self._database.run(partial(self._accept, body.token, invitation, person, origin, is_new=True))
            return invitation
        async with self._throttle.attempt(known.email_key, origin.address):
            if not await self._hasher.verify(body.password, known.password):
                await self._database.run(self._note_failure, invitation, known, origin)
                raise WrongCredentialsError
        await self._database.run(partial(self._accept, body.token, invitation, known, origin, is_new=False))
        return invitation

    def _invite(self, body: InviteBody, practice_id: UUID, inviter_id: UUID, origin: Origin) -> Invitation:
        with self._database.engine.begin() as connection:
            practices.lock_practice(connection, practice_id)  # two invitations to one e-mail are one after the other
            if staff.is_member(connection, practice_id, body.email_key):
                raise AlreadyMemberError
            before = staff.find_invitation_to(connection, practice_id, body.email_key)
            if before is not None and not before.is_expired:
                raise InvitationOpenError
            if before is not None:
                staff.revoke_invitation(connection, before.id)
            if len(staff.list_invitations(connection, practice_id, after=None, limit=MOST_OPEN)) == MOST_OPEN:
                raise TooManyInvitationsError
            _spare_mailboxes(connection, practice_id)
            invitation_id, token = new_id(), new_secret()
            staff.insert_invitation(
                connection,
                invitation_id,
                practice_id=practice_id,
                email=body.email,
                email_key=body.email_key,
                role=body.role,
                token=token,
                invited_by=inviter_id,
            )
            note(connection, Action.STAFF_INVITED, origin, target=str(invitation_id), detail={"role": body.role})
            return _mail(connection, invitation_id, token, origin)

    def _page(self, practice_id: UUID, limit: int, after: UUID | None) -> Page[Invitation]:
        with self._database.engine.begin() as connection:
            found = staff.list_invitations(connection, practice_id, after=after, limit=limit + 1)
        return page_of(found, limit, lambda invitation: invitation.id)

    def _send_again(self, invitation_id: UUID, practice_id: UUID, origin: Origin) -> Invitation:
        with self._database.engine.begin() as connection:
            practices.lock_practice(connection, practice_id)
            if staff.find_invitation(connection, practice_id, invitation_id) is None:
                raise UnknownInvitationError
            _spare_mailboxes(connection, practice_id)
            token = new_secret()
            staff.renew_invitation(connection, invitation_id, token=token)
            note(connection, Action.INVITATION_SENT_AGAIN, origin, target=str(invitation_id))
            return _mail(connection, invitation_id, token, origin)

    def _revoke(self, invitation_id: UUID, practice_id: UUID, origin: Origin) -> None:
        with self._database.engine.begin() as connection:
            practices.lock_practice(connection, practice_id)
            if staff.find_invitation(connection, practice_id, invitation_id) is None:
                raise UnknownInvitationError
            staff.revoke_invitation(connection, invitation_id)
            note(connection, Action.INVITATION_REVOKED, origin, target=str(invitation_id))

    def _find(self, token: str) -> tuple[Invitation, Person | None]:
        with self._database.engine.begin() as connection:
            invitation = staff.find_invitation_by_token(connection, token)
            if invitation is None:
                raise MailTokenError
            if practices.status_of(connection, invitation.practice_id) in AT_REST:
                raise PracticeSuspendedError
            return invitation, people.find_person_by_email(connection, invitation.email_key)

    def _accept(self, token: str, invitation: Invitation, person: Person, origin: Origin, *, is_new: bool) -> None:
        try:
            with self._database.engine.begin() as connection:
                if not staff.accept_invitation(connection, token):
                    raise MailTokenError
                if is_new:
                    people.insert_person(connection, person)
                else:
                    people.mark_verified(connection, person.id, email_key=person.email_key)
                staff.add_member(connection, invitation.practice_id, person.id, invitation.role)
                note(
                    connection,
                    Action.STAFF_JOINED,
                    origin,
                    practice_id=invitation.practice_id,
                    person_id=person.id,
                    target=str(invitation.id),
                    detail={"role": invitation.role},
                )
        except IntegrityError as fault:
            # the e-mail became somebody's a moment ago: whose it is has to be shown by the password
            if isinstance(fault.orig, psycopg2.Error) and fault.orig.diag.constraint_name in EMAIL_CONSTRAINTS:
                raise WrongCredentialsError from fault
            raise

    def _note_failure(self, invitation: Invitation, person: Person, origin: Origin) -> None:
        with self._database.engine.begin() as connection:
            note(
                connection,
                Action.STAFF_JOINED,
                origin,
                practice_id=invitation.practice_id,
                person_id=person.id,
                outcome=FAILURE,
                target=str(invitation.id),
            )


def _inviter(origin: Origin) -> tuple[UUID, UUID]:
    if origin.practice_id is None or origin.person_id is None:
        raise NoSessionError
    return origin.practice_id, origin.person_id


def _spare_mailboxes(connection: Connection, practice_id: UUID) -> None:
    if staff.count_sent(connection, practice_id, within_s=MAILS_WITHIN_S) >= MOST_MAILS:
        raise TooManyMailsError(retry_after_s=MAILS_WITHIN_S)


def _mail(connection: Connection, invitation_id: UUID, token: str, origin: Origin) -> Invitation:
    practice_id, inviter_id = _inviter(origin)
    invitation = staff.find_invitation(connection, practice_id, invitation_id)
    practice = practices.find_practice(connection, practice_id)
    inviter = people.find_person(connection, inviter_id)
    assert invitation is not None
    if practice is None or inviter is None:
        raise NoSessionError  # removed a moment ago
    announce(
        connection,
        STAFF_INVITED,
        origin,
        practice_id=practice_id,
        email=invitation.email,
        practice=practice.name,
        inviter=inviter.name,
        role=invitation.role,
        token=token,
    )
    return invitation
