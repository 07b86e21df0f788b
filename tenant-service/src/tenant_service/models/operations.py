"""The record of what the platform's admin did."""

import uuid
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from shared.models import Success


class OperationItem(BaseModel):
    """What was done, when, from where, and with what outcome."""

    id: uuid.UUID
    at: datetime
    action: str
    outcome: Literal["success", "failure"]
    practice_id: uuid.UUID | None
    target: str | None = Field(description="What else it is about: a server, a job, a copy.")
    address: str = Field(description="Empty for what no call asked for.")
    request_id: str
    detail: dict[str, Any]


class OperationPage(BaseModel):
    """The newest first."""

    data: list[OperationItem]
    next_cursor: str | None = Field(default=None, description="Absent on the last page.")


class OperationsAnswer(Success):
    """The envelope around a page of the record."""

    result: OperationPage
