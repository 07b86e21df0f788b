"""API keys."""

from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field
from pydantic_core import PydanticCustomError

from shared.models import PlainText, StrictBody, Success

KeyPermission = Literal["patients:read", "patients:write", "patients:delete", "audit:read"]


def _in_the_future(at: datetime) -> datetime:
    if at <= datetime.now(UTC):
        raise PydanticCustomError("past", "This is in the past")
    return at


def _without_repetition(permissions: list[str]) -> list[str]:
    if len(set(permissions)) != len(permissions):
        raise PydanticCustomError("repeated", "A permission is repeated")
    return permissions


class NewKeyBody(StrictBody):
    """What the key is for, what it may do, and until when; null: until it is revoked."""

    name: Annotated[PlainText, Field(min_length=1, max_length=100, examples=["Lab import"])]
    permissions: Annotated[list[KeyPermission], Field(min_length=1), AfterValidator(_without_repetition)]
    expires_at: Annotated[AwareDatetime, Field(strict=False), AfterValidator(_in_the_future)] | None = None


class KeyShown(BaseModel):
    """`prefix` is the key's beginning; `last_used_at` is true to a minute or two."""

    id: UUID
    name: str
    prefix: str
    permissions: list[KeyPermission]
    created_by: UUID
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    is_expired: bool


class MadeKeyShown(KeyShown):
    """With the key, which can't be shown again."""

    key: str


class KeyMade(Success):
    """Send it as `Authorization: Bearer`."""

    result: MadeKeyShown


class KeysPage(BaseModel):
    data: list[KeyShown]
    next_cursor: str | None = None


class KeysFound(Success):
    result: KeysPage
