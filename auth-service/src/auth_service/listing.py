"""Who may see which practices: the platform's admin all of them, a practice itself."""

from uuid import UUID

from auth_service.database import Database
from auth_service.paging import Page, page_of, position_in
from auth_service.storage import practices
from auth_service.storage.practices import Practice
from shared.context import Caller
from shared.errors import ForbiddenError
from shared.roles import Permission, allows, demand


class Listing:
    """Pages of practices."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def visible_to(self, caller: Caller, *, limit: int, cursor: str | None) -> Page[Practice]:
        """Practices that have signed up, suspended ones too. Raises ForbiddenError, MalformedCursorError."""
        if allows(caller, Permission.PLATFORM_READ):
            return await self.page(limit=limit, cursor=cursor, registered_only=True)
        if allows(caller, Permission.PRACTICE_READ) and caller.practice_id:
            return Page(await self._database.run(self._own, UUID(caller.practice_id)), next_cursor=None)
        demand(caller, Permission.PRACTICE_READ)
        raise ForbiddenError

    async def page(self, *, limit: int, cursor: str | None, registered_only: bool) -> Page[Practice]:
        """Practices in order of their age. Raises MalformedCursorError."""
        found = await self._database.run(self._page, position_in(cursor), limit + 1, registered_only)
        return page_of(found, limit, lambda practice: practice.id)

    def _own(self, practice_id: UUID) -> list[Practice]:
        with self._database.engine.begin() as connection:
            return practices.list_practices(connection, after=None, limit=1, registered_only=True, only=practice_id)

    def _page(self, after: UUID | None, limit: int, registered_only: bool) -> list[Practice]:  # noqa: FBT001 - a thread's argument
        with self._database.engine.begin() as connection:
            return practices.list_practices(connection, after=after, limit=limit, registered_only=registered_only)
