"""What can go wrong with a patient, a shard or its server, as clients see it; and which SQLSTATE means which."""

from collections.abc import Callable
from typing import ClassVar

import psycopg2

from patient_service.libpq import statement_sqlstate
from shared.errors import MalformedRequestError, NotFoundError, ServiceError, ValidationFailedError


class PatientNotFoundError(NotFoundError):
    """Unknown, deleted or another practice's: nobody can tell which."""

    error, title = "patient-not-found", "Patient not found"


class MalformedShardError(MalformedRequestError):
    error, title = "malformed-shard", "No shard is named, or its name is malformed"


class MalformedPracticeError(MalformedRequestError):
    error, title = "malformed-practice", "No practice is named, or its id is malformed"


class ShardMovedError(ServiceError):
    """Nothing was executed: the gateway may ask the directory anew and repeat the call."""

    error, status, title = "shard-moved", 421, "The practice's shard is elsewhere"


class _TryLaterError(ServiceError):
    """Says when to try again."""

    status: ClassVar[int] = 503
    after_s: ClassVar[int] = 2

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, retry_after_s=self.after_s)


class UnknownServerError(_TryLaterError):
    error, title, after_s = "unknown-shard-server", "The shard's server is unknown", 5


class WrongShardError(_TryLaterError):
    error, title, after_s = "wrong-shard", "The shard belongs to another practice", 30


class ShardUnfitError(_TryLaterError):
    error, title, after_s = "shard-unfit", "The practice's database needs an operator", 30


class ShardUnavailableError(_TryLaterError):
    error, title = "shard-unavailable", "The practice's database is not available right now"


class OutcomeUnknownError(_TryLaterError):
    """The connection was lost while a write was under way: PostgreSQL may have committed it or never seen it."""

    error, title = "outcome-unknown", "It is not known whether this was stored"

    def __init__(self) -> None:
        super().__init__(
            "The practice's database was lost before it answered. Look what is stored before you repeat this."
        )


class ServerFullError(_TryLaterError):
    error, title, after_s = "shard-server-full", "The shard's server has no connection free", 1


class PracticeBusyError(_TryLaterError):
    error, title, after_s = "practice-busy", "The practice has too many calls in progress", 1


class StatementTimeoutError(ServiceError):
    error, status, title = "too-slow", 504, "The practice's database took too long"


class ConflictError(ServiceError):
    error, status, title = "conflict", 409, "This contradicts what is stored"


def _unstorable() -> ServiceError:
    return ValidationFailedError("A value can't be stored.")


_MEANINGS: dict[str | None, Callable[[], ServiceError]] = {
    None: ShardUnavailableError,  # the connection was lost
    "57014": StatementTimeoutError,
    "25006": ShardUnavailableError,  # read-only: the shard is being moved
    "40001": PracticeBusyError,  # serialisation, deadlock, a lock that was not given in time
    "40P01": PracticeBusyError,
    "55P03": PracticeBusyError,
}
_MEANINGS_OF_CLASSES: dict[str, Callable[[], ServiceError]] = {
    "08": ShardUnavailableError,  # connection trouble
    "53": ShardUnavailableError,  # too few resources: a full disk, no memory
    "57": ShardUnavailableError,  # an operator's intervention
    "58": ShardUnavailableError,  # a system's error
    "22": _unstorable,
    "23": ConflictError,
}


def statement_error(fault: psycopg2.Error, *, is_write: bool) -> ServiceError:
    """The error that a failed statement means. Its text stays inside: drivers put values into theirs."""
    state = statement_sqlstate(fault)
    if state is None and is_write:
        return OutcomeUnknownError()
    of_class = _MEANINGS_OF_CLASSES.get((state or "")[:2], ShardUnfitError)
    return _MEANINGS.get(state, of_class)()
