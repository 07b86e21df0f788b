"""What can go wrong here, named; each with its answer. Rendered by shared."""

from typing import ClassVar

from shared.errors import NotFoundError, ServiceError, TooManyRequestsError, UnavailableError

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="gowebbo"'}


class EmailTakenError(ServiceError):
    error, status, title = "email-taken", 409, "This e-mail is already registered"


class WrongCredentialsError(ServiceError):
    """One answer for an unknown e-mail and a wrong password."""

    error, status, title = "wrong-credentials", 401, "The e-mail or the password is wrong"

    def __init__(self) -> None:
        super().__init__(headers=_CHALLENGE)


class InvalidRefreshTokenError(ServiceError):
    """Forged, expired, revoked or used before: the client has to log in again."""

    error, status, title = "invalid-refresh-token", 401, "The refresh token is not valid"

    def __init__(self) -> None:
        super().__init__(headers=_CHALLENGE)


class NoSessionError(ServiceError):
    """Somebody without a session wants to end it."""

    error, status, title = "unauthenticated", 401, "Authentication is required"

    def __init__(self) -> None:
        super().__init__(headers=_CHALLENGE)


class UnknownPracticeError(NotFoundError):
    error, title = "unknown-practice", "There is no such practice"


class PracticeNotActiveError(ServiceError):
    """Only what is active can be suspended, and only what is suspended resumed."""

    error, status, title = "practice-not-active", 409, "This practice is neither active nor suspended"


class TooManyFailuresError(TooManyRequestsError):
    error, title = "too-many-failures", "Too many failed log-ins"


class TooManySignUpsError(TooManyRequestsError):
    error, title = "too-many-sign-ups", "Too many sign-ups from this address"


class HashingBusyError(UnavailableError):
    """More passwords wait for hashing than can be hashed in time."""

    title: ClassVar[str] = "Too many people log in at this moment"


class ShardUnavailableError(UnavailableError):
    """tenant-service didn't make the practice's shard (in time)."""


class SignUpUndoneError(UnavailableError):
    """The practice was not registered; nothing of it remains, the e-mail is free."""

    title: ClassVar[str] = "The practice could not be registered right now"
