"""Backups of a practice, and copies of its data beside the live shard."""

import uuid
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from shared.models import PlainText, StrictBody, Success
from tenant_service.storage.copies import CopyOrigin, CopyState


def _whole(path: str) -> str:
    if not PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError("must be a whole path on tenant-service's machine")
    return path


FilePath = Annotated[PlainText, AfterValidator(_whole)]


class BackupOrder(StrictBody):
    """Where a backup is to be written."""

    to: FilePath = Field(max_length=1000, description="A folder on tenant-service's machine; made if absent.")


class RestoreOrder(StrictBody):
    """Which backup is to be restored."""

    path: FilePath = Field(max_length=1200, description="The file, on tenant-service's machine.")


class TakeBackOrder(StrictBody):
    """Which patients are to be as they are in the copy."""

    patients: list[Annotated[uuid.UUID, Field(strict=False)]] = Field(min_length=1, max_length=1000)


class ExportOrder(StrictBody):
    """What auth-service adds to the rows, and where all of it goes."""

    to: FilePath = Field(max_length=1000)
    practice: dict[str, Any]
    audit: list[dict[str, Any]]


class BackupItem(BaseModel):
    """A backup's file."""

    path: str
    sha256: str
    bytes: int
    rows: int
    revision: str
    is_scheduled: bool
    taken_at: datetime


class BackupPage(BaseModel):
    """A practice's backups."""

    data: list[BackupItem]


class BackupsAnswer(Success):
    """The envelope around a practice's backups."""

    result: BackupPage


class CopyItem(BaseModel):
    """A copy of a practice's data."""

    server: str
    database: str
    origin: CopyOrigin = Field(description="From a backup, left behind by a move, or put aside by a swap.")
    state: CopyState


class CopyPage(BaseModel):
    """A practice's copies."""

    data: list[CopyItem]


class CopiesAnswer(Success):
    """The envelope around a practice's copies."""

    result: CopyPage
