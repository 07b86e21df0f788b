"""What comes in and goes out, as Pydantic models."""

from functools import lru_cache
from typing import Annotated, Literal
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from shared.events import Outcome
from shared.models import PlainText, StrictBody, Success

_MAX_TOKEN = 4096
_MAX_DETAIL = 500


@lru_cache(maxsize=256)  # asked for twice at each log-in; half a millisecond each
def _normal_email(email: str) -> str:
    # `.test` (RFC 6761) can't be anybody's: demos and tests use it
    return validate_email(email, check_deliverability=False, test_environment=True).normalized


def _check_email(email: str) -> str:
    fault = None
    try:
        _normal_email(email)
    except EmailNotValidError as found:
        fault = found  # its own message would repeat the value
    # an encoded word (RFC 2047) in a mail's header would be read as something else: no mail could reach it
    if fault or "=?" in email:
        raise PydanticCustomError("email", "This is no valid e-mail address") from fault
    return email


def _check_encodable(password: str) -> str:
    try:
        password.encode()
    except UnicodeEncodeError as fault:
        raise PydanticCustomError("unicode", "This is no valid Unicode text") from fault
    return password


def _shortened(detail: str) -> str:
    """A mail server's words, whatever they are: a receipt must not fail for them."""
    return "".join(filter(str.isprintable, detail))[:_MAX_DETAIL]


Email = Annotated[PlainText, Field(max_length=254, examples=["clinic@example.com"]), AfterValidator(_check_email)]
"""A valid address; kept as written."""

NewPassword = Annotated[
    str, Field(min_length=8, max_length=128, examples=["securepassword"]), AfterValidator(_check_encodable)
]
"""Characters of any script, neither trimmed nor altered."""

GivenPassword = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_check_encodable)]
"""What somebody claims to be the password; too short a one is wrong, not invalid."""


class _WithEmail(StrictBody):
    email: Email

    @property
    def email_key(self) -> str:
        """What e-mails are compared by."""
        return _normal_email(self.email).lower()


class SignUpBody(_WithEmail):
    """A practice that signs up; the e-mail and the password are its owner's."""

    name: Annotated[PlainText, Field(min_length=3, max_length=50, examples=["Sunrise Clinic"])]
    password: NewPassword


class LogInBody(_WithEmail):
    """Who logs in."""

    password: GivenPassword


class RefreshBody(StrictBody):
    """The newest refresh token."""

    refresh_token: Annotated[str, Field(min_length=1, max_length=_MAX_TOKEN)]


class ReceiptBody(StrictBody):
    """What became of an event."""

    event_id: Annotated[UUID, Field(strict=False)]
    outcome: Outcome
    detail: Annotated[str, AfterValidator(_shortened)] = ""


# -- answers, for the API document: handlers answer with the envelope itself ------------------------------------------


class PracticeShown(BaseModel):
    """A practice. The admin also sees `status`."""

    id: UUID
    name: str
    email: str
    status: str | None = None


class PracticeDetails(PracticeShown):
    """A practice as its operator sees it."""

    status: Literal["provisioning", "active", "suspended", "closing", "closed"]
    database_name: str | None
    created_at: str


class PracticePage(BaseModel):
    """A page; `next_cursor` is there when more follow."""

    data: list[PracticeShown]
    next_cursor: str | None = None


class PracticeDetailsPage(BaseModel):
    """The same with all details."""

    data: list[PracticeDetails]
    next_cursor: str | None = None


class SignedUp(Success):
    """A registered practice."""

    result: PracticeShown


class OnePractice(Success):
    """A practice as it is now, with its status."""

    result: PracticeShown


class LoggedIn(Success):
    """Tokens; `expires_in` is the access token's life in seconds."""

    token: str
    refresh_token: str
    expires_in: int


class Done(Success):
    """Success with nothing to return."""


class PracticesFound(Success):
    """A page of practices."""

    result: PracticePage


class PracticeDetailsFound(Success):
    """A page of practices for their operator."""

    result: PracticeDetailsPage
