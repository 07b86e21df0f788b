"""The record of what the platform's admin did. Entries are only ever added, which the database sees to."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select

from shared.ids import new_id
from tenant_service.schema import operations


class Entry(NamedTuple):
    """An entry as it is read."""

    id: uuid.UUID
    at: datetime
    action: str
    outcome: str
    practice_id: uuid.UUID | None
    target: str | None
    address: str
    request_id: str
    detail: Mapping[str, Any]


_ENTRY = tuple(operations.c[name] for name in Entry._fields)


def add_entry(connection: Connection, **values: Any) -> None:
    """Adds an entry, by the table's columns, in the transaction that makes it true."""
    connection.execute(insert(operations).values(id=new_id(), **values))


def page_of_entries(
    connection: Connection, *, practice_id: uuid.UUID | None, before: uuid.UUID | None, limit: int
) -> list[Entry]:
    """The newest first; `before` is the last entry of the page before."""
    query = select(*_ENTRY).order_by(operations.c.id.desc()).limit(limit)
    if practice_id is not None:
        query = query.where(operations.c.practice_id == practice_id)
    if before is not None:
        query = query.where(operations.c.id < before)
    return [Entry(*row) for row in connection.execute(query)]
