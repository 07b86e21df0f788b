"""Ids made by the application: UUID version 7 (RFC 9562), so that they sort by time; and request ids."""

import re
import uuid

import uuid_utils

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")


def new_id() -> uuid.UUID:
    """A new UUIDv7 as the standard library's type."""
    return uuid.UUID(int=uuid_utils.uuid7().int)


def request_id_of(sent: bytes | None) -> bytes:
    """The client's request id if it is a valid one, else a new one."""
    if sent and _REQUEST_ID.fullmatch(sent):
        return sent
    return uuid_utils.uuid7().hex.encode()
