"""Logging in and staying logged in."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from auth_service.models.common import BodyWithEmail, GivenPassword
from shared.models import StrictBody, Success

_MAX_TOKEN = 4096

Code = Annotated[str, Field(min_length=1, max_length=32, examples=["123456"])]
"""Six digits of the authenticator app, or a recovery code."""


class LogInBody(BodyWithEmail):
    """Who logs in. `code` is wanted of people with a second factor."""

    password: GivenPassword
    code: Code | None = None


class RefreshBody(StrictBody):
    """The newest refresh token."""

    refresh_token: Annotated[str, Field(min_length=1, max_length=_MAX_TOKEN)]


class LoggedIn(Success):
    """Tokens; `expires_in` is the access token's life in seconds."""

    token: str
    refresh_token: str
    expires_in: int


class AdminLoggedIn(Success):
    """A token; `expires_in` is its life in seconds."""

    token: str
    expires_in: int


class SessionShown(BaseModel):
    """A session. `device` is what the client calls itself; `current` is the one that asks."""

    id: UUID
    practice_id: UUID
    device: str
    address: str
    created_at: str
    last_used_at: str
    expires_at: str
    current: bool


class SessionPage(BaseModel):
    """A page; `next_cursor` is there when more follow."""

    data: list[SessionShown]
    next_cursor: str | None = None


class SessionsFound(Success):
    """The caller's live sessions, the newest log-in first."""

    result: SessionPage
