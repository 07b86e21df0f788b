"""Errors as clients see them: RFC 9457's members inside the product's envelope, rendered in this one place.

A rule raises a subclass of ServiceError; three lines make a new one.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import orjson

MAINTENANCE_RETRY_AFTER_S = 30
JSON = b"application/json"
PROBLEM_JSON = b"application/problem+json"


class ServiceError(Exception):
    """An error with an answer. `error` ends the type URI, `title` is the same for every occurrence."""

    error: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong on our side"

    def __init__(
        self,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        retry_after_s: int | None = None,
        faults: Sequence[Mapping[str, str]] | None = None,
    ) -> None:
        """`detail` is shown to the client; `faults` are `{field, message}` of a validation."""
        super().__init__(detail or self.title)
        self.detail = detail or f"{self.title}."
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)
        self.faults = faults

    def body(self, request_id: str) -> bytes:
        """The error's JSON."""
        document: dict[str, object] = {
            "success": False,
            "status": self.status,
            "message": f"{self.title}.",
            "type": f"/errors/{self.error}",
            "title": self.title,
            "detail": self.detail,
            "instance": request_id,
        }
        if self.faults is not None:
            document["errors"] = list(self.faults)
        return orjson.dumps(document)


def error_media_type(accept: bytes | None) -> bytes:
    """`application/problem+json` for a client that asks for it, else `application/json`."""
    return PROBLEM_JSON if accept and PROBLEM_JSON in accept.lower() else JSON


class MalformedRequestError(ServiceError):
    error, status, title = "malformed-request", 400, "The request is malformed"


class MalformedCursorError(MalformedRequestError):
    error, title = "malformed-cursor", "The cursor is malformed"


class UnauthenticatedError(ServiceError):
    error, status, title = "unauthenticated", 401, "Authentication is required"


class ForbiddenError(ServiceError):
    error, status, title = "forbidden", 403, "This role may not do this"


class SecondFactorNeededError(ServiceError):
    """The role would allow it, once a second factor is set up and the token refreshed."""

    error, status, title = "second-factor-enrolment-required", 403, "This practice wants a second factor of this role"


class PracticeSuspendedError(ServiceError):
    error, status, title = "practice-suspended", 403, "This practice is suspended"


class NotFoundError(ServiceError):
    error, status, title = "not-found", 404, "Not found"


class MethodNotAllowedError(ServiceError):
    error, status, title = "method-not-allowed", 405, "This method is not allowed here"


class BodyTooLargeError(ServiceError):
    error, status, title = "body-too-large", 413, "The body is too large"


class UnsupportedMediaTypeError(ServiceError):
    error, status, title = "unsupported-media-type", 415, "The body must be JSON"


class ValidationFailedError(ServiceError):
    error, status, title = "validation", 422, "Validation failed"


class TooManyRequestsError(ServiceError):
    error, status, title = "too-many-requests", 429, "Too many requests"


class UpstreamFailedError(ServiceError):
    error, status, title = "upstream-failed", 502, "A part of the service failed"


class UnavailableError(ServiceError):
    error, status, title = "unavailable", 503, "The service is not available right now"


class ShardMaintenanceError(UnavailableError):
    """One practice's database is fenced, or not as far migrated as services need it; all others are served."""

    error, title = "shard-maintenance", "This practice's database is under maintenance"

    def __init__(self, *, retry_after_s: int = MAINTENANCE_RETRY_AFTER_S) -> None:
        super().__init__(retry_after_s=retry_after_s)


class UpstreamTimeoutError(ServiceError):
    error, status, title = "upstream-timeout", 504, "A part of the service was too slow"
