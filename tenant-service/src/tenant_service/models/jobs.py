"""Deeds that outlast their request."""

import uuid
from typing import Any

from pydantic import BaseModel, Field

from shared.models import Success
from tenant_service.storage.jobs import JobState


class JobItem(BaseModel):
    """A deed that outlasts its request."""

    id: uuid.UUID
    kind: str
    state: JobState
    done: int
    total: int | None = Field(description="What `done` will be in the end; null until that is known.")
    result: Any
    error: str | None


class JobAnswer(Success):
    """The envelope around a job."""

    result: JobItem
