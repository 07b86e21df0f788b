"""What the directory tells: its servers, its rows, its changes. Each is one short transaction."""

import uuid
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Engine

from shared.changes import MAX_CHANGES
from shared.cursor import decode_cursor, encode_cursor
from shared.errors import MalformedCursorError
from tenant_service.storage import changes, directory, operations, registry
from tenant_service.storage.changes import Changes
from tenant_service.storage.directory import Shard, ShardState
from tenant_service.storage.operations import Entry
from tenant_service.storage.registry import Server


class ShardPage(NamedTuple):
    """Directory rows, and the cursor behind them if there are more."""

    rows: Sequence[Shard]
    next_cursor: str | None


def known_servers(engine: Engine) -> list[Server]:
    """Every shard server."""
    with engine.begin() as connection:
        return registry.list_servers(connection)


def page_of_shards(engine: Engine, *, state: ShardState | None, limit: int, cursor: str | None) -> ShardPage:
    """Rows in the order of practice ids. Raises MalformedCursorError."""
    after = id_in(cursor) if cursor is not None else None
    with engine.begin() as connection:
        rows = directory.page_of_shards(connection, state=state, after=after, limit=limit + 1)
    if len(rows) <= limit:
        return ShardPage(rows, None)
    return ShardPage(rows[:limit], encode_cursor(str(rows[limit - 1].practice_id)))


def page_of_operations(
    engine: Engine, *, practice_id: uuid.UUID | None, limit: int, cursor: str | None
) -> tuple[Sequence[Entry], str | None]:
    """Entries of the record, the newest first, and the cursor behind them. Raises MalformedCursorError."""
    before = id_in(cursor) if cursor is not None else None
    with engine.begin() as connection:
        rows = operations.page_of_entries(connection, practice_id=practice_id, before=before, limit=limit + 1)
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], encode_cursor(str(rows[limit - 1].id))


def news(engine: Engine, after: int | None) -> Changes:
    """Changes behind a number; without one, all that still matter. At most MAX_CHANGES at a time."""
    with engine.begin() as connection:
        return changes.changes_after(connection, after, limit=MAX_CHANGES)


def id_in(cursor: str) -> uuid.UUID:
    """Behind which practice or entry a page begins. Raises MalformedCursorError."""
    try:
        return uuid.UUID(decode_cursor(cursor, parts=1)[0])
    except ValueError as fault:
        raise MalformedCursorError from fault
