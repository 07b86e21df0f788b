"""What this service answers, as the API document shows it."""

import re
import uuid
from ipaddress import IPv6Address
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, Field

from shared.models import PlainText, StrictBody, Success
from tenant_service.config import SERVER_KEY, SslMode
from tenant_service.storage.directory import Shard, ShardState
from tenant_service.storage.jobs import JobState
from tenant_service.storage.registry import ServerState

MOST_PRACTICES = 1_000_000
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,252})")
_PATH = re.compile(r"/[^,\0]{0,254}")


def _one_host(text: str) -> str:
    """A comma would make libpq read a list of hosts."""
    if _HOST_NAME.fullmatch(text) or _PATH.fullmatch(text):
        return text
    try:
        return str(IPv6Address(text.strip("[]")))
    except ValueError:
        raise ValueError("is no host name, no address and no folder of a unix socket") from None


def _certificates(text: str) -> str:
    if text != "system" and not text.startswith("/"):
        raise ValueError("must be a file's whole path on tenant-service's and patient-service's machines, or system")
    return text


class ServerBody(StrictBody):
    """A shard server to add. What is absent keeps its value if the server is known."""

    key: str = Field(pattern=rf"^{SERVER_KEY}$", description="Its name in this fleet: `b`, `west-2`.")
    host: Annotated[PlainText, AfterValidator(_one_host)] = Field(max_length=255)
    port: int = Field(default=5432, ge=1, le=65535)
    sslmode: SslMode | None = Field(
        default=None, description="libpq's. For a new one `verify-full`, `prefer` on this machine."
    )
    sslrootcert: Annotated[PlainText, AfterValidator(_certificates)] | None = Field(
        default=None, max_length=1000, description="The authority's file, or `system`. Default: DB_SSLROOTCERT."
    )
    capacity: int | None = Field(
        default=None, ge=0, le=MOST_PRACTICES, description="Practices it may take; 5000 for a new one."
    )


class ServerItem(BaseModel):
    """A shard server."""

    key: str
    host: str
    port: int
    state: ServerState
    practices: int = Field(description="Practices placed here.")
    capacity: int = Field(description="Practices it may take.")
    connections: int | None = Field(description="Client connections now; null when it does not answer.")


class ServerPage(BaseModel):
    """All shard servers."""

    data: list[ServerItem]


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


class ServersAnswer(Success):
    """The envelope around the shard servers."""

    result: ServerPage


class ServerAnswer(Success):
    """The envelope around one shard server."""

    result: ServerItem


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
