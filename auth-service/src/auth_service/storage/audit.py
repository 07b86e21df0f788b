"""The audit: what happened to accounts. Entries are only ever added, which the database sees to."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, insert, select

from auth_service.schema import audit

_INSERT = insert(audit)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as it is read."""

    id: UUID
    at: datetime
    practice_id: UUID | None
    actor: str
    actor_id: str | None
    action: str
    outcome: str
    person_id: UUID | None
    target: str | None
    session_id: UUID | None
    address: str
    user_agent: str
    request_id: str
    detail: dict[str, Any]


_ENTRY = tuple(audit.c[name] for name in Entry.__dataclass_fields__)


def add_entry(connection: Connection, entry: dict[str, Any]) -> None:
    """Adds an entry, by the table's columns, in the transaction that makes it true."""
    connection.execute(_INSERT, entry)


def list_entries(
    connection: Connection,
    *,
    equal: Mapping[str, object],
    since: datetime | None,
    until: datetime | None,
    before: UUID | None,
    limit: int,
) -> list[Entry]:
    """The newest first; `equal` names columns and values, `before` is the last entry of the page before."""
    query = select(*_ENTRY).where(*(audit.c[name] == value for name, value in equal.items()))
    if since is not None:
        query = query.where(audit.c.at >= since)
    if until is not None:
        query = query.where(audit.c.at < until)
    if before is not None:
        query = query.where(audit.c.id < before)
    return [Entry(*row) for row in connection.execute(query.order_by(audit.c.id.desc()).limit(limit))]
