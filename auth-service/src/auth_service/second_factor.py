"""The second factor: codes of an authenticator app (TOTP, RFC 6238), and recovery codes for who lost it."""

import base64
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import pyotp
from sqlalchemy import Connection

from auth_service.auditing import FAILURE, Action, note
from auth_service.database import Database
from auth_service.exceptions import (
    NoSecondFactorError,
    NoSessionError,
    SecondFactorExistsError,
    WrongCodeError,
)
from auth_service.origin import Origin
from auth_service.sealing import Sealing, UnsealableError
from auth_service.storage import changes, people, second_factors, sessions
from auth_service.storage.people import Person
from auth_service.storage.second_factors import Factor
from auth_service.throttle import LoginThrottle
from shared.changes import SESSION_CHANGED
from shared.ids import new_id
from shared.logs import get_logger

STEP_S = 30
STEPS_OFF = 1
"""A code of the step before or after is right, too: clocks differ, people are slow (RFC 6238, 5.2)."""
RECOVERY_CODES = 10
_RECOVERY_BYTES = 10
RESEAL_EVERY_S = 3600.0
_RESEAL_BATCH = 500
_ISSUER = "GoWebbo"
_log = get_logger()


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an authenticator app has to be told: as an address, as its secret, as a picture (SVG)."""

    uri: str
    secret: str
    svg: str


@dataclass(frozen=True, slots=True)
class FactorState:
    """Whether log-in asks the person for a code."""

    enabled: bool
    recovery_codes_left: int


class SecondFactors:
    """Set up, confirmed, asked for, removed."""

    def __init__(
        self,
        database: Database,
        *,
        sealing: Sealing,
        throttle: LoginThrottle,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._sealing = sealing
        self._throttle = throttle
        self._clock = clock

    async def state(self, origin: Origin) -> FactorState:
        """The caller's. Raises NoSessionError."""
        return await self._database.run(self._state, await self._caller(origin))

    async def begin(self, origin: Origin) -> Enrolment:
        """A new secret, which counts when a code of it is confirmed. Raises NoSessionError, SecondFactorExistsError."""
        return await self._database.run(self._begin, await self._caller(origin), origin)

    async def confirm(self, code: str, origin: Origin) -> list[str]:
        """The recovery codes, which nobody can read again.

        Raises NoSessionError, NoSecondFactorError, SecondFactorExistsError, WrongCodeError, TooManyFailuresError.
        """
        return await self._with_code(self._confirm, code, origin)

    async def renew_recovery_codes(self, code: str, origin: Origin) -> list[str]:
        """New recovery codes, the old ones are worth nothing. Raises as `remove`."""
        return await self._with_code(self._renew, code, origin)

    async def remove(self, code: str, origin: Origin) -> None:
        """Log-in asks for no code any more.

        Raises NoSessionError, NoSecondFactorError, WrongCodeError, TooManyFailuresError.
        """
        await self._with_code(self._remove, code, origin)

    def take_code(self, connection: Connection, person_id: UUID, code: str) -> bool:
        """Whether the code is right, within the caller's transaction; it is worth nothing afterwards."""
        factor = second_factors.find_factor(connection, person_id)
        if factor is None or not factor.is_confirmed:
            return False
        if self._take_totp(connection, factor, code):
            return True
        return second_factors.take_recovery_code(connection, person_id, _normal(code))

    def reseal(self) -> int:
        """Seals with the newest secret what an older one sealed; how many. Blocking."""
        count, after = 0, None
        while True:
            with self._database.engine.begin() as connection:
                batch = second_factors.list_factors(connection, after=after, limit=_RESEAL_BATCH)
                for factor in batch:
                    if self._sealing.is_outdated(factor.secret):
                        count += self._reseal_one(connection, factor)
            if len(batch) < _RESEAL_BATCH:
                return count
            after = batch[-1].id

    def _reseal_one(self, connection: Connection, factor: Factor) -> bool:
        try:
            secret = self._sealing.open(factor.secret, factor.person_id)
        except UnsealableError:
            _log.error("second_factor_unreadable", person_id=str(factor.person_id))
            return False
        sealed = self._sealing.seal(secret, factor.person_id)
        second_factors.replace_secret(connection, factor.id, old=factor.secret, new=sealed)
        return True

    async def _caller(self, origin: Origin) -> Person:
        person = await self._database.run(self._find_caller, origin.person_id)
        if person is None:
            raise NoSessionError
        return person

    async def _with_code(
        self, deed: Callable[[Person, str, Origin], list[str] | None], code: str, origin: Origin
    ) -> list[str]:
        """Codes are guessed as passwords are: so they count as these."""
        person = await self._caller(origin)
        async with self._throttle.attempt(person.email_key, origin.address):
            result = await self._database.run(deed, person, code, origin)
            if result is None:
                raise WrongCodeError
        return result

    def _find_caller(self, person_id: UUID | None) -> Person | None:
        if person_id is None:
            return None
        with self._database.engine.begin() as connection:
            return people.find_person(connection, person_id)

    def _state(self, person: Person) -> FactorState:
        with self._database.engine.begin() as connection:
            factor = second_factors.find_factor(connection, person.id)
            enabled = factor is not None and factor.is_confirmed
            left = second_factors.count_recovery_codes(connection, person.id) if enabled else 0
            return FactorState(enabled, left)

    def _begin(self, person: Person, origin: Origin) -> Enrolment:
        secret = pyotp.random_base32()
        factor = Factor(new_id(), person.id, self._sealing.seal(secret, person.id), is_confirmed=False)
        with self._database.engine.begin() as connection:
            people.lock_person(connection, person.id)
            there = second_factors.find_factor(connection, person.id)
            if there is not None and there.is_confirmed:
                raise SecondFactorExistsError
            second_factors.delete_factors(connection, person.id)
            second_factors.insert_factor(connection, factor)
            note(connection, Action.SECOND_FACTOR_BEGUN, origin)
        uri = pyotp.TOTP(secret).provisioning_uri(name=person.email, issuer_name=_ISSUER)
        return Enrolment(uri, secret, _picture(uri))

    def _confirm(self, person: Person, code: str, origin: Origin) -> list[str] | None:
        with self._database.engine.begin() as connection:
            people.lock_person(connection, person.id)
            factor = second_factors.find_factor(connection, person.id)
            if factor is None:
                raise NoSecondFactorError
            if factor.is_confirmed:
                raise SecondFactorExistsError
            if not self._take_totp(connection, factor, code):
                note(connection, Action.SECOND_FACTOR_ENABLED, origin, outcome=FAILURE)
                return None
            second_factors.confirm_factor(connection, factor.id)
            codes = _new_recovery_codes()
            second_factors.replace_recovery_codes(connection, person.id, map(_normal, codes))
            if origin.session_id:
                sessions.note_second_factor(connection, origin.session_id)
            note(connection, Action.SECOND_FACTOR_ENABLED, origin)
            return codes

    def _renew(self, person: Person, code: str, origin: Origin) -> list[str] | None:
        with self._database.engine.begin() as connection:
            self._require_factor(connection, person)
            is_right = self.take_code(connection, person.id, code)
            note(connection, Action.RECOVERY_CODES_RENEWED, origin, outcome="success" if is_right else FAILURE)
            if not is_right:
                return None
            codes = _new_recovery_codes()
            second_factors.replace_recovery_codes(connection, person.id, map(_normal, codes))
            return codes

    def _remove(self, person: Person, code: str, origin: Origin) -> list[str] | None:
        with self._database.engine.begin() as connection:
            self._require_factor(connection, person)
            is_right = self.take_code(connection, person.id, code)
            note(connection, Action.SECOND_FACTOR_REMOVED, origin, outcome="success" if is_right else FAILURE)
            if not is_right:
                return None
            second_factors.delete_factors(connection, person.id)
            second_factors.replace_recovery_codes(connection, person.id, ())
            # where a practice wants a second factor, its tokens are not what they were
            for session_id, practice_id in second_factors.forget_in_sessions(connection, person.id):
                changes.add_session_changes(connection, SESSION_CHANGED, [session_id], practice_id=practice_id)
            return []

    def _require_factor(self, connection: Connection, person: Person) -> None:
        people.lock_person(connection, person.id)
        factor = second_factors.find_factor(connection, person.id)
        if factor is None or not factor.is_confirmed:
            raise NoSecondFactorError

    def _take_totp(self, connection: Connection, factor: Factor, code: str) -> bool:
        try:
            secret = self._sealing.open(factor.secret, factor.person_id)
        except UnsealableError:
            _log.error("second_factor_unreadable", person_id=str(factor.person_id))
            return False
        step = _step_of(code.replace(" ", ""), pyotp.TOTP(secret), now=self._clock())
        return step is not None and second_factors.take_step(connection, factor.id, step)


def _step_of(code: str, totp: pyotp.TOTP, *, now: float) -> int | None:
    """The time step that the code is right for."""
    current = int(now) // STEP_S
    found = None
    for step in range(current - STEPS_OFF, current + STEPS_OFF + 1):
        # all of them are compared, so that the time tells nothing
        if hmac.compare_digest(totp.generate_otp(step).encode(), code.encode()):
            found = step
    return found


def _new_recovery_codes() -> list[str]:
    raw = [base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode().lower() for _ in range(RECOVERY_CODES)]
    return ["-".join(code[at : at + 4] for at in range(0, len(code), 4)) for code in raw]


def _normal(code: str) -> str:
    """A recovery code however somebody types it."""
    return "".join(character for character in code.lower() if character.isalnum())


def _picture(uri: str) -> str:
    import segno  # noqa: PLC0415 - few calls need it, and every start would pay for it

    return str(segno.make(uri, error="m", micro=False).svg_inline(scale=4))
