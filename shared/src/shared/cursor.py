"""Opaque keyset cursors and the page limits of every list."""

import base64
import binascii
from typing import Annotated

import orjson
from fastapi import Query

from shared.errors import MalformedCursorError

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
MAX_CURSOR_CHARACTERS = 512

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Rows on a page.")]
CursorText = Annotated[
    str | None, Query(max_length=MAX_CURSOR_CHARACTERS, description="`next_cursor` of the page before.")
]


def encode_cursor(*position: str) -> str:
    """The cursor that continues behind this position."""
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode().rstrip("=")


def decode_cursor(text: str, *, parts: int) -> list[str]:
    """The position in a cursor of so many parts. Raises MalformedCursorError."""
    try:
        position = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as fault:
        raise MalformedCursorError from fault
    if not isinstance(position, list) or len(position) != parts or not all(isinstance(p, str) for p in position):
        raise MalformedCursorError
    return position
