"""A practice signs up: two transactions around one call to tenant-service, and nothing half-made is left.

No transaction is open across the call. Whatever fails is undone at once, or by the reconciler after a kill.
"""

import asyncio
from collections.abc import Callable
from uuid import UUID

import psycopg2
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from auth_service.address_limit import AddressLimit
from auth_service.auditing import Action, note
from auth_service.database import Database
from auth_service.exceptions import EmailTakenError, SignUpUndoneError
from auth_service.mailing import announce
from auth_service.models.practices import SignUpBody
from auth_service.origin import Origin
from auth_service.passwords import PasswordHasher
from auth_service.shards import Shards
from auth_service.storage import mail_tokens, practices
from auth_service.storage.mail_tokens import Purpose
from auth_service.storage.practices import EMAIL_CONSTRAINTS, SignUp
from shared.errors import ServiceError
from shared.events import PRACTICE_REGISTERED
from shared.ids import new_id
from shared.logs import describe_fault, get_logger
from shared.roles import OWNER

BUDGET_S = 9.5
"""For the whole sign-up: the gateway gives up after 10 s, the reconciler takes a sign-up for dead after 15 s."""
_RETRY_AFTER_S = 5
_log = get_logger()


class SigningUp:
    """Registers practices. `on_registered` is told that an event waits, `on_undone` that a shard may be left."""

    def __init__(
        self,
        database: Database,
        *,
        limit: AddressLimit,
        hasher: PasswordHasher,
        shards: Shards,
        on_registered: Callable[[], None],
        on_undone: Callable[[], None],
    ) -> None:
        self._database = database
        self._limit = limit
        self._hasher = hasher
        self._shards = shards
        self._on_registered = on_registered
        self._on_undone = on_undone

    async def register(self, body: SignUpBody, *, origin: Origin) -> SignUp:
        """An active practice with shard and owner.

        Raises TooManyCallsError, EmailTakenError, SignUpUndoneError, HashingBusyError.
        """
        await self._limit.admit(origin.address)
        # before the hash, which is dear: a flood of one taken e-mail must not keep log-ins waiting
        await self._database.run(self._refuse_taken, body.email_key)
        clock = asyncio.get_running_loop().time
        deadline = clock() + BUDGET_S
        signup = SignUp(
            practice_id=new_id(),
            person_id=new_id(),
            name=body.name,
            email=body.email,
            email_key=body.email_key,
            password=await self._hasher.hash(body.password),
            role=OWNER,
        )
        try:
            await self._database.run(self._begin, signup)
            shard = await self._shards.ensure(signup.practice_id, timeout_s=deadline - clock())
            await self._database.run(self._finish, signup, shard.database, origin)
        except EmailTakenError:
            raise
        except (ServiceError, SQLAlchemyError) as fault:
            _log.warning("signup_failed", practice_id=str(signup.practice_id), **describe_fault(fault))
            if not await self._settle(signup.practice_id):
                raise SignUpUndoneError(retry_after_s=_RETRY_AFTER_S) from fault
        self._on_registered()
        return signup

    def _refuse_taken(self, email_key: str) -> None:
        with self._database.reading.connect() as connection:
            if practices.is_email_taken(connection, email_key):
                raise EmailTakenError

    def _begin(self, signup: SignUp) -> None:
        try:
            with self._database.engine.begin() as connection:
                practices.insert_signup(connection, signup)
        except IntegrityError as fault:
            if isinstance(fault.orig, psycopg2.Error) and fault.orig.diag.constraint_name in EMAIL_CONSTRAINTS:
                raise EmailTakenError from fault
            raise

    def _finish(self, signup: SignUp, database_name: str, origin: Origin) -> None:
        with self._database.engine.begin() as connection:
            if not practices.activate(connection, signup.practice_id, database_name=database_name):
                raise SignUpUndoneError(retry_after_s=_RETRY_AFTER_S)
            token = mail_tokens.add_token(
                connection, Purpose.VERIFY_EMAIL, person_id=signup.person_id, email_key=signup.email_key
            )
            announce(
                connection,
                PRACTICE_REGISTERED,
                origin,
                practice_id=signup.practice_id,
                name=signup.name,
                email=signup.email,
                token=token,
            )
            note(connection, Action.SIGNED_UP, origin, practice_id=signup.practice_id, person_id=signup.person_id)

    async def _settle(self, practice_id: UUID) -> bool:
        """Whether the practice is active after all (a commit's answer may be lost); else its sign-up is undone."""
        try:
            is_active = await self._database.run(self._undo_unless_active, practice_id)
        except (ServiceError, SQLAlchemyError):
            _log.warning("signup_left_to_reconciler", practice_id=str(practice_id))
            return False
        if not is_active:
            self._on_undone()
        return is_active

    def _undo_unless_active(self, practice_id: UUID) -> bool:
        with self._database.engine.begin() as connection:
            if practices.undo_signup(connection, practice_id):
                return False
            return practices.status_of(connection, practice_id) == practices.ACTIVE
