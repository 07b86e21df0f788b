"""Who may read which part of the audit: a practice its own, the platform's admin all of it."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from auth_service.database import Database
from auth_service.paging import Page, page_of, position_in
from auth_service.storage import audit
from auth_service.storage.audit import Entry
from shared.context import Caller
from shared.errors import ForbiddenError
from shared.roles import Permission, allows, demand


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody looks for; None: whatever there is."""

    action: str | None = None
    outcome: str | None = None
    person_id: UUID | None = None
    practice_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None


class AuditReading:
    """Pages of the audit."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, caller: Caller, wanted: Wanted, *, limit: int, cursor: str | None) -> Page[Entry]:
        """Some entries, the newest first. Raises ForbiddenError, MalformedCursorError."""
        equal: dict[str, object] = {
            name: value
            for name in ("action", "outcome", "person_id", "practice_id")
            if (value := getattr(wanted, name)) is not None
        }
        if allows(caller, Permission.AUDIT_READ) and caller.practice_id:
            own = UUID(caller.practice_id)
            if equal.setdefault("practice_id", own) != own:
                return Page([], next_cursor=None)
        elif not allows(caller, Permission.PLATFORM_READ):
            demand(caller, Permission.AUDIT_READ)
            raise ForbiddenError
        return await self._database.run(self._page, equal, wanted, limit, position_in(cursor))

    def _page(self, equal: dict[str, object], wanted: Wanted, limit: int, before: UUID | None) -> Page[Entry]:
        with self._database.engine.begin() as connection:
            found = audit.list_entries(
                connection, equal=equal, since=wanted.since, until=wanted.until, before=before, limit=limit + 1
            )
        return page_of(found, limit, lambda entry: entry.id)
