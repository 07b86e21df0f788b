"""Lists in pages: by a key that only grows, never by an offset."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from shared.cursor import decode_cursor, encode_cursor
from shared.errors import MalformedCursorError

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[_Item]):
    """Some items; `next_cursor` is there when more follow."""

    items: Sequence[_Item]
    next_cursor: str | None


def page_of(found: Sequence[_Item], limit: int, id_of: Callable[[_Item], UUID]) -> Page[_Item]:
    """The page, of one item more than fits on it where there are more."""
    next_cursor = encode_cursor(str(id_of(found[limit - 1]))) if len(found) > limit else None
    return Page(found[:limit], next_cursor)


def position_in(cursor: str | None) -> UUID | None:
    """The id behind which the page begins. Raises MalformedCursorError."""
    if cursor is None:
        return None
    try:
        return UUID(decode_cursor(cursor, parts=1)[0])
    except ValueError as fault:
        raise MalformedCursorError from fault
