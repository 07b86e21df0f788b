"""The end of a practice."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from shared.models import PlainText, StrictBody, Success


class Closure(BaseModel):
    practice: UUID
    status: Literal["active", "suspended", "closing"]
    until: str | None = Field(description="Until then the closing can be undone.")


class ClosureShown(Success):
    result: Closure


class ExportBody(StrictBody):
    """Where the archive is to be written."""

    to: PlainText = Field(max_length=1000, description="A folder's whole path on tenant-service's machine.")


class Export(BaseModel):
    practice: UUID
    path: str
    rows: int


class ExportShown(Success):
    result: Export


class Record(BaseModel):
    practice: UUID
    record: str


class RecordShown(Success):
    result: Record
