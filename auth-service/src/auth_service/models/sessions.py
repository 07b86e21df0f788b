"""Logging in and staying logged in."""

from typing import Annotated

from pydantic import Field

from auth_service.models.common import BodyWithEmail, GivenPassword
from shared.models import StrictBody, Success

_MAX_TOKEN = 4096


class LogInBody(BodyWithEmail):
    """Who logs in."""

    password: GivenPassword


class RefreshBody(StrictBody):
    """The newest refresh token."""

    refresh_token: Annotated[str, Field(min_length=1, max_length=_MAX_TOKEN)]


class LoggedIn(Success):
    """Tokens; `expires_in` is the access token's life in seconds."""

    token: str
    refresh_token: str
    expires_in: int
