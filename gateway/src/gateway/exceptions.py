"""What can go wrong at the gateway, beside what shared.errors already names. No rule lives here."""

from shared.errors import (
    ServiceError,
    TooManyRequestsError,
    UnauthenticatedError,
    UnavailableError,
)


class RequestTimeoutError(ServiceError):
    error, status, title = "request-timeout", 408, "The request took too long to arrive"


class UriTooLongError(ServiceError):
    error, status, title = "uri-too-long", 414, "The address is too long"


class HeadersTooLargeError(ServiceError):
    error, status, title = "headers-too-large", 431, "The request's headers are too large"


class InvalidTokenError(UnauthenticatedError):
    error, title = "invalid-token", "The access token is not valid"


class AdminThrottledError(TooManyRequestsError):
    title = "Too many failed log-ins"


class PracticeWithoutShardError(UnavailableError):
    error, title = "practice-without-shard", "This practice's data is not available right now"


class OverloadedError(UnavailableError):
    error, title = "overloaded", "A part of the service is overloaded"


class PracticeOverloadedError(UnavailableError):
    error, title = "practice-overloaded", "This practice has too many calls under way"


class CircuitOpenError(UnavailableError):
    error, title = "circuit-open", "A part of the service has failed repeatedly and is given a pause"


class ClientGoneError(Exception):
    """The client went away: nobody waits for an answer."""


class AnswerCutError(Exception):
    """The answer broke off after its beginning was sent: the connection must be cut, not ended properly."""
