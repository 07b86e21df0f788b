"""How every shard is now: looked at in the shards themselves, page by page. Changes nothing."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import NamedTuple

import psycopg2
from sqlalchemy import Engine

from shared.cursor import encode_cursor
from tenant_service import migrating, shard_migration
from tenant_service.exceptions import ShardServerUnavailableError
from tenant_service.listing import id_in
from tenant_service.models.shards import ShardReport
from tenant_service.server_admin import ServerAdmin
from tenant_service.servers import FAULTS, ServerRegistry
from tenant_service.shard_migration import Look, explain
from tenant_service.storage import directory, ledger
from tenant_service.storage.directory import Shard, ShardState
from tenant_service.storage.ledger import Entry

AT_ONCE = 2
"""Shards that a process looks at in parallel."""
PAGE_S = 2.5
"""A page ends early, with what was looked at by then: the gateway waits for 10 s."""


class Standing(StrEnum):
    """What an operator has to know of a shard. Only `current` needs nothing."""

    CURRENT = "current"
    BEHIND = "behind"
    AHEAD = "ahead"
    """A newer release migrated it."""
    DRIFTED = "drifted"
    FENCED = "fenced"
    """Nothing is wrong with it any more: the next migration lifts the fence."""
    UNREACHABLE = "unreachable"


class StatusPage(NamedTuple):
    """Shards in the order of practice ids, and the cursor behind them if there are more."""

    head: str
    rows: Sequence[ShardReport]
    next_cursor: str | None


class FleetStatus:
    """Looks at shards, at a few at a time."""

    def __init__(self, engine: Engine, servers: ServerRegistry) -> None:
        self._engine = engine
        self._servers = servers
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="looking at shards")

    def page(self, *, limit: int, cursor: str | None) -> StatusPage:
        """So many shards, or fewer where looking takes long. Raises MalformedCursorError."""
        after = id_in(cursor) if cursor is not None else None
        head = migrating.head(migrating.SHARD)
        with self._engine.begin() as connection:
            shards = directory.page_of_shards(connection, state=ShardState.READY, after=after, limit=limit + 1)
            entries = ledger.entries(connection, head, [shard.name.database for shard in shards])
        looked_at = self._look_at(shards[:limit])
        rows = [
            _report(shard, found, entries.get(shard.name.database))
            for shard, found in zip(shards, looked_at, strict=False)
        ]
        more = len(rows) < len(shards)
        return StatusPage(head, rows, encode_cursor(str(shards[len(rows) - 1].practice_id)) if more else None)

    def _look_at(self, shards: Sequence[Shard]) -> list[Look | str]:
        """What was seen, or why nothing was, of as many as time allows; of one at least."""
        ends = time.monotonic() + PAGE_S
        down: dict[str, str] = {}
        looks = [self._threads.submit(self._look, shard, down, ends) for shard in shards[1:]]
        first = self._threads.submit(self._look, shards[0], down, float("inf")) if shards else None
        found: list[Look | str] = []
        for look in ([first] if first else []) + looks:
            if (seen := look.result()) is None:
                break
            found.append(seen)
        return found

    def _look(self, shard: Shard, down: dict[str, str], ends: float) -> Look | str | None:
        key, database = shard.name
        if time.monotonic() > ends:
            return None
        if key in down:
            return down[key]
        try:
            admin = self._servers.admin(key)
        except ShardServerUnavailableError as fault:
            return str(fault)
        try:
            return shard_migration.look(admin.access, database)
        except psycopg2.Error as fault:
            told = explain(fault)
            if not _answers(admin):  # its other shards needn't be tried
                down[key] = told
            return told

    def close(self) -> None:
        """Lets running looks end."""
        self._threads.shutdown(wait=True)


def _answers(admin: ServerAdmin) -> bool:
    try:
        with admin.session() as session:
            return bool(session.rows("SELECT 1"))
    except FAULTS:
        return False


def _report(shard: Shard, seen: Look | str, entry: Entry | None) -> ShardReport:
    look, error = (seen, None) if isinstance(seen, Look) else (None, seen)
    return ShardReport.of(
        shard,
        state=_standing(shard, look),
        revision=look.revision if look else shard.revision,
        fingerprint_ok=look.drift is None if look else None,
        seconds=entry.seconds if entry else None,
        error=error or (look and look.drift) or (entry and entry.error),
    )


def _standing(shard: Shard, look: Look | None) -> Standing:
    if look is None:
        return Standing.UNREACHABLE
    if look.drift:
        return Standing.DRIFTED
    if not look.is_known:
        return Standing.AHEAD
    if shard.fence:
        return Standing.FENCED
    return Standing.CURRENT if look.revision == migrating.head(migrating.SHARD) else Standing.BEHIND
