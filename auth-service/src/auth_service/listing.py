"""Who may see which practices: the platform's admin all of them, a practice itself."""

from dataclasses import dataclass
from uuid import UUID

from auth_service.database import Database
from auth_service.storage import practices
from auth_service.storage.practices import Practice
from shared.context import Caller
from shared.cursor import decode_cursor, encode_cursor
from shared.errors import ForbiddenError, MalformedCursorError
from shared.roles import Permission, allows


@dataclass(frozen=True, slots=True)
class Page:
    """Some practices; `is_operators` when the reader operates the platform."""

    practices: list[Practice]
    next_cursor: str | None
    is_operators: bool


class Listing:
    """Pages of practices."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def visible_to(self, caller: Caller, *, limit: int, cursor: str | None) -> Page:
        """Practices that have signed up, suspended ones too. Raises ForbiddenError, MalformedCursorError."""
        if allows(caller, Permission.PLATFORM_READ):
            return await self.page(limit=limit, cursor=cursor, registered_only=True)
        if allows(caller, Permission.PRACTICE_READ) and caller.practice_id:
            own = await self._database.run(self._own, UUID(caller.practice_id))
            return Page(own, next_cursor=None, is_operators=False)
        raise ForbiddenError

    async def page(self, *, limit: int, cursor: str | None, registered_only: bool) -> Page:
        """Practices in order of their age. Raises MalformedCursorError."""
        after = _position(cursor) if cursor is not None else None
        found = await self._database.run(self._page, after, limit + 1, registered_only)
        next_cursor = encode_cursor(str(found[limit - 1].id)) if len(found) > limit else None
        return Page(found[:limit], next_cursor=next_cursor, is_operators=True)

    def _own(self, practice_id: UUID) -> list[Practice]:
        with self._database.engine.begin() as connection:
            return practices.list_practices(connection, after=None, limit=1, registered_only=True, only=practice_id)

    def _page(self, after: UUID | None, limit: int, registered_only: bool) -> list[Practice]:  # noqa: FBT001 - a thread's argument
        with self._database.engine.begin() as connection:
            return practices.list_practices(connection, after=after, limit=limit, registered_only=registered_only)


def _position(cursor: str) -> UUID:
    try:
        return UUID(decode_cursor(cursor, parts=1)[0])
    except ValueError as fault:
        raise MalformedCursorError from fault
