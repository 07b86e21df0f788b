"""What this service answers, as the API document shows it."""

from pydantic import BaseModel, Field

from shared.models import Success
from tenant_service.storage.directory import ShardState
from tenant_service.storage.registry import ServerState


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


class ShardPage(BaseModel):
    """A page of the directory."""

    data: list[ShardItem]
    next_cursor: str | None = Field(default=None, description="Absent on the last page.")


class ServersAnswer(Success):
    """The envelope around the shard servers."""

    result: ServerPage


class ShardsAnswer(Success):
    """The envelope around a page of the directory."""

    result: ShardPage
