"""Shard servers."""

import re
from ipaddress import IPv6Address
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from shared.models import PlainText, StrictBody, Success
from tenant_service.config import SERVER_KEY, SslMode
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


class ServersAnswer(Success):
    """The envelope around the shard servers."""

    result: ServerPage


class ServerAnswer(Success):
    """The envelope around one shard server."""

    result: ServerItem
