"""Passwords and addresses."""

from typing import Annotated

from pydantic import Field

from auth_service.models.common import BodyWithEmail, GivenPassword, NewPassword
from shared.models import PlainText, StrictBody

MailToken = Annotated[PlainText, Field(min_length=1, max_length=200)]
"""What a mail brought, perhaps copied with a space. Of any form: a wrong one is wrong, not invalid."""


class ForgotBody(BodyWithEmail):
    """Who forgot the password."""


class ResetBody(StrictBody):
    """The token of the mail, and the password to have from now on."""

    token: MailToken
    password: NewPassword


class ChangeBody(StrictBody):
    """The password as it is, and as it shall be."""

    current: GivenPassword
    password: NewPassword


class VerifyBody(StrictBody):
    """The token of the mail."""

    token: MailToken
