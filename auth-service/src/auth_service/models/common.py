"""What several bodies and answers are made of."""

from functools import lru_cache
from typing import Annotated, Literal

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from auth_service.common_passwords import is_common
from shared.errors import ValidationFailedError
from shared.models import PlainText, StrictBody, Success


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


def _check_uncommon(password: str) -> str:
    if is_common(password):
        raise PydanticCustomError("common_password", "This is one of the commonest passwords; choose another one")
    return password


def _check_encodable(password: str) -> str:
    try:
        password.encode()
    except UnicodeEncodeError as fault:
        raise PydanticCustomError("unicode", "This is no valid Unicode text") from fault
    return password


Role = Literal["owner", "clinician", "receptionist", "auditor"]

Email = Annotated[PlainText, Field(max_length=254, examples=["clinic@example.com"]), AfterValidator(_check_email)]
"""A valid address; kept as written."""

NewPassword = Annotated[
    str,
    Field(min_length=8, max_length=128, examples=["securepassword"]),
    AfterValidator(_check_encodable),
    AfterValidator(_check_uncommon),
]
"""Characters of any script, neither trimmed nor altered; none of the commonest."""

GivenPassword = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_check_encodable)]
"""What somebody claims to be the password; too short a one is wrong, not invalid."""


_NEW_PASSWORD: TypeAdapter[str] = TypeAdapter(NewPassword, config=ConfigDict(hide_input_in_errors=True))


def require_new_password(password: str) -> str:
    """The password, if somebody may have it from now on. Raises ValidationFailedError."""
    try:
        return _NEW_PASSWORD.validate_python(password)
    except ValidationError as found:
        faults = [{"field": "password", "message": f"{one['msg']}."} for one in found.errors()]
        raise ValidationFailedError("One or more values are not acceptable.", faults=faults) from found


class BodyWithEmail(StrictBody):
    """A body that names somebody by the e-mail."""

    email: Email

    @property
    def email_key(self) -> str:
        """What e-mails are compared by."""
        return _normal_email(self.email).lower()


class Done(Success):
    """Success with nothing to return."""
