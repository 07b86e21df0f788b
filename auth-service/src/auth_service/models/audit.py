"""The audit."""

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel

from shared.models import Success


class EntryShown(BaseModel):
    """Who did what, when, from where, and with what outcome."""

    id: UUID
    at: str
    practice_id: UUID | None
    actor: Literal["person", "api-key", "admin", "service", "anonymous"]
    actor_id: str | None
    action: str
    outcome: Literal["success", "failure"]
    person_id: UUID | None
    target: str | None
    session_id: UUID | None
    address: str
    user_agent: str
    request_id: str
    detail: dict[str, Any]


class EntriesPage(BaseModel):
    data: list[EntryShown]
    next_cursor: str | None = None


class EntriesFound(Success):
    """The newest first."""

    result: EntriesPage
