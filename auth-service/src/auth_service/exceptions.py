"""What can go wrong here, named; each with its answer. Rendered by shared."""

from typing import ClassVar

from shared.errors import NotFoundError, ServiceError, TooManyRequestsError, UnavailableError, ValidationFailedError

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="gowebbo"'}


class EmailTakenError(ServiceError):
    error, status, title = "email-taken", 409, "This e-mail is already registered"


class WrongCredentialsError(ServiceError):
    """One answer for an unknown e-mail and a wrong password."""

    error, status, title = "wrong-credentials", 401, "The e-mail or the password is wrong"

    def __init__(self) -> None:
        super().__init__(headers=_CHALLENGE)


class SecondFactorRequiredError(ServiceError):
    """The password is right, and a code is wanted beside it. No failure: nobody guessed."""

    error, status, title = "second-factor-required", 401, "A code of the second factor is required"

    def __init__(self) -> None:
        super().__init__(headers=_CHALLENGE)


class WrongCodeError(WrongCredentialsError):
    """Counts as a wrong password does: six digits are guessed soon."""

    error, title = "wrong-code", "The code is wrong, or was used before"


class NoSecondFactorError(ServiceError):
    error, status, title = "no-second-factor", 409, "There is no second factor set up"


class SecondFactorExistsError(ServiceError):
    error, status, title = "second-factor-exists", 409, "A second factor is set up already"


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


class TooManyCallsError(TooManyRequestsError):
    error, title = "too-many-calls", "Too many calls of this kind from this address"


class TooManyMailsError(TooManyRequestsError):
    error, title = "too-many-mails", "Too many mails were asked for in a short time"


class MailTokenError(ServiceError):
    """Unknown, used, revoked or expired: one answer for all of them."""

    error, status, title = "token-not-valid", 400, "This link or code is no longer valid"


class GuessablePasswordError(ValidationFailedError):
    """The new password is what somebody would try who knows its owner."""

    def __init__(self) -> None:
        fault = {"field": "password", "message": "This is the e-mail or the name; choose another password."}
        super().__init__("One or more values are not acceptable.", faults=[fault])


class EmailNotVerifiedError(ServiceError):
    """The operator wants addresses to be verified before anybody works."""

    error, status, title = "email-not-verified", 403, "This e-mail address is not verified yet"


class UnknownStaffError(NotFoundError):
    error, title = "unknown-staff", "There is no such person in this practice"


class UnknownInvitationError(NotFoundError):
    error, title = "unknown-invitation", "There is no such invitation"


class LastOwnerError(ServiceError):
    error, status, title = "last-owner", 409, "A practice has at least one owner"


class AlreadyMemberError(ServiceError):
    error, status, title = "already-member", 409, "Somebody with this e-mail works in this practice already"


class InvitationOpenError(ServiceError):
    error, status, title = "invitation-open", 409, "This e-mail is invited already; send that invitation again"


class TooManyInvitationsError(ServiceError):
    error, status, title = "too-many-invitations", 409, "Too many invitations are open"


class UnknownKeyError(NotFoundError):
    error, title = "unknown-key", "There is no such API key"


class TooManyKeysError(ServiceError):
    error, status, title = "too-many-keys", 409, "This practice has as many API keys as it may have"


class UnknownSessionError(NotFoundError):
    error, title = "unknown-session", "There is no such session"


class HashingBusyError(UnavailableError):
    """More passwords wait for hashing than can be hashed in time."""

    title: ClassVar[str] = "Too many people log in at this moment"


class ShardUnavailableError(UnavailableError):
    """tenant-service didn't make the practice's shard (in time)."""


class SignUpUndoneError(UnavailableError):
    """The practice was not registered; nothing of it remains, the e-mail is free."""

    title: ClassVar[str] = "The practice could not be registered right now"


class PracticeNotClosingError(ServiceError):
    error, status, title = "practice-not-closing", 409, "The closing of this practice can't be undone"


class DeletionRecordUnknownError(NotFoundError):
    error, title = "deletion-record-unknown", "There is no deletion record of this practice"


class ExportRefusedError(ServiceError):
    error, status, title = "export-refused", 409, "The export can't be written"
