"""Practices' shards: where each is, how it is, whether it is isolated."""

import uuid
from typing import Self

from pydantic import BaseModel, Field

from shared.models import StrictBody, Success
from tenant_service.storage.directory import Shard, ShardState


class ShardItem(BaseModel):
    """Where a practice's data is."""

    practice_id: str
    server: str | None = Field(description="Null when the database of an undone sign-up is gone.")
    database: str | None
    state: ShardState
    revision: str | None = Field(description="How far its migrations were when somebody last looked.")
    fence: str | None = Field(description="Why nobody may use it now: `drifted` or `behind`; null when all may.")


class ShardPage(BaseModel):
    """A page of the directory."""

    data: list[ShardItem]
    next_cursor: str | None = Field(default=None, description="Absent on the last page.")


class ShardsAnswer(Success):
    """The envelope around a page of the directory."""

    result: ShardPage


class ShardReport(BaseModel):
    """How a shard is, or what a migration did to it."""

    practice_id: uuid.UUID
    server: str
    database: str
    revision: str | None = Field(description="How far it says it is; as last known where nobody could look.")
    fingerprint_ok: bool | None = Field(description="Whether it is what its revision leads to; null if nobody knows.")
    state: str = Field(
        description="Now: current, behind, ahead, drifted, fenced, unreachable. "
        "After a migration: done, failed, drifted, skipped."
    )
    seconds: float | None = Field(description="How long its last migration took.")
    error: str | None

    @classmethod
    def of(
        cls,
        shard: Shard,
        *,
        state: str,
        revision: str | None,
        fingerprint_ok: bool | None = None,
        seconds: float | None = None,
        error: str | None = None,
    ) -> Self:
        """The report on a row of the directory."""
        server, database = shard.name
        return cls(
            practice_id=shard.practice_id,
            server=server,
            database=database,
            revision=revision,
            fingerprint_ok=fingerprint_ok,
            state=state,
            seconds=seconds,
            error=error,
        )


class StatusPage(BaseModel):
    """A page of shards as they are now."""

    head: str = Field(description="The newest revision.")
    data: list[ShardReport]
    next_cursor: str | None = Field(default=None, description="Absent on the last page.")


class StatusAnswer(Success):
    """The envelope around a page of shards as they are now."""

    result: StatusPage


class MigrationOrder(StrictBody):
    """How the fleet is to be migrated."""

    canary: int = Field(default=0, ge=0, description="So many shards first; the rest only if they all succeed.")


class CheckItem(BaseModel):
    """One thing that isolates a practice."""

    name: str
    ok: bool
    detail: str = Field(description="How it is, or what is wrong.")


class IsolationItem(BaseModel):
    """A practice and what was found of it."""

    id: str
    checks: list[CheckItem]


class IsolationPage(BaseModel):
    """A page of the report."""

    data: list[IsolationItem]
    total: int = Field(description="Practices in the whole report.")
    next_cursor: str | None = Field(default=None, description="Absent on the last page.")


class IsolationAnswer(Success):
    """The envelope around a page of the report."""

    result: IsolationPage
