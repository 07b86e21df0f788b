"""Brings every shard to the newest revision: some first, then the rest, on all servers at once.

Every ready shard is visited, also those that say they are there. What is wrong is fenced, alone; whatever fails, the
others go on. Done twice it finds nothing to do, so a run that was interrupted is begun anew.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from typing import Any, NamedTuple

from sqlalchemy import Engine

from shared.logs import get_logger
from tenant_service import migrating, shard_migration
from tenant_service.jobs import Progress
from tenant_service.migration_server import MigrationServer
from tenant_service.models.shards import ShardReport
from tenant_service.servers import ServerRegistry
from tenant_service.shard_migration import Outcome
from tenant_service.storage import directory, ledger
from tenant_service.storage.directory import Fence, Shard, ShardState
from tenant_service.storage.ledger import Entry, MigrationState

KIND = "migrate-shards"
SKIPPED = "skipped"
"""A shard that wasn't visited, since one of the first ones failed."""
_log = get_logger()


class _Visited(NamedTuple):
    shard: Shard
    outcome: Outcome


class FleetMigration:
    """The deed of the jobs of this kind. Blocking; safe to share among threads and replicas."""

    def __init__(self, engine: Engine, servers: ServerRegistry, *, workers: int) -> None:
        """`workers` are for each shard server."""
        self._engine = engine
        self._servers = servers
        self._workers = workers

    def run(self, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """Migrates all; with `canary` in the arguments, so many first, and no more unless they all succeed.

        Raises OperationalError when the central database can't be reached, and StoppingError.
        """
        head = migrating.head(migrating.SHARD)
        with self._engine.begin() as connection:
            shards = directory.ready_shards(connection)
        first, rest = _rings(shards, canary=int(arguments.get("canary", 0)), head=head)
        visited = self._visit_all(first, progress, before=0, total=len(shards))
        stopped = not all(one.outcome.state is MigrationState.DONE for one in visited)
        if not (first and stopped):
            stopped = False
            visited += self._visit_all(rest, progress, before=len(visited), total=len(shards))
        _log.info("shards_migrated", head=head, visited=len(visited), stopped=stopped)
        return {"head": head, "stopped": stopped, "shards": self._rows(visited, rest if stopped else [], head)}

    def _visit_all(self, shards: Sequence[Shard], progress: Progress, *, before: int, total: int) -> list[_Visited]:
        """Visits in parallel, on each server by its own threads. Those that are gone meanwhile aren't in the result."""
        found: list[_Visited] = []
        with contextlib.ExitStack() as stack:
            servers = {
                key: stack.enter_context(MigrationServer(key, self._servers, workers=self._workers))
                for key in sorted({shard.name.server for shard in shards})
            }
            futures = [
                servers[shard.name.server].threads.submit(self._visit, servers[shard.name.server], shard)
                for shard in shards
            ]
            try:
                for count, future in enumerate(as_completed(futures), start=1):
                    if visited := future.result():
                        found.append(visited)
                    progress.note(before + count, total)
            finally:
                for future in futures:
                    future.cancel()
        return found

    def _visit(self, server: MigrationServer, shard: Shard) -> _Visited | None:
        began = time.monotonic()
        with server.locked(shard.name.database) as fault:
            if not self._is_still_there(shard):
                return None
            outcome = (
                Outcome(MigrationState.FAILED, None, fault)
                if fault
                else shard_migration.migrate(server.access, shard.name.database)
            )
            self._record(shard, outcome, seconds=round(time.monotonic() - began, 3))
        return _Visited(shard, outcome)

    def _is_still_there(self, shard: Shard) -> bool:
        """What was true before the wait for the lock may be over."""
        with self._engine.begin() as connection:
            now = directory.find_shard(connection, shard.practice_id)
        return now is not None and now.state is ShardState.READY and now.name == shard.name

    def _record(self, shard: Shard, outcome: Outcome, *, seconds: float) -> None:
        entry = Entry(shard.name.database, outcome.state, seconds, outcome.error)
        revision = outcome.look.revision if outcome.look else None
        with self._engine.begin() as connection:
            ledger.record(connection, entry, revision=migrating.head(migrating.SHARD), changed=outcome.changed)
            if revision is not None:
                directory.note_revision(connection, shard.practice_id, revision)
            if outcome.state is MigrationState.DRIFTED:
                directory.set_fence(connection, shard.practice_id, Fence.DRIFTED)
            elif outcome.look and outcome.look.is_known:
                if revision in migrating.accepted_revisions():
                    directory.lift_fence(connection, shard.practice_id)
                else:
                    directory.set_fence(connection, shard.practice_id, Fence.BEHIND)
        if outcome.state is not MigrationState.DONE:
            _log.error("shard_not_migrated", shard=str(shard.name), state=outcome.state)

    def _rows(self, visited: Sequence[_Visited], skipped: Sequence[Shard], head: str) -> list[dict[str, Any]]:
        with self._engine.begin() as connection:
            entries = ledger.entries(connection, head, [one.shard.name.database for one in visited])
        rows = [_visited_row(one, entries[one.shard.name.database]) for one in visited]
        rows += [ShardReport.of(shard, state=SKIPPED, revision=shard.revision) for shard in skipped]
        return [row.model_dump(mode="json") for row in sorted(rows, key=lambda row: row.practice_id)]


def _rings(shards: Sequence[Shard], *, canary: int, head: str) -> tuple[list[Shard], list[Shard]]:
    """Who goes first: shards that are behind, for the others would prove nothing, and none that is known to be bad."""
    by_worth = sorted(shards, key=lambda shard: (shard.revision == head, shard.fence is not None))
    first = by_worth[:canary]
    chosen = {shard.practice_id for shard in first}
    return first, [shard for shard in shards if shard.practice_id not in chosen]


def _visited_row(visited: _Visited, entry: Entry) -> ShardReport:
    """The ledger knows better than the visit how long a shard took that was found done."""
    look = visited.outcome.look
    return ShardReport.of(
        visited.shard,
        state=visited.outcome.state,
        revision=look.revision if look else visited.shard.revision,
        fingerprint_ok=look.drift is None if look else None,
        seconds=entry.seconds,
        error=visited.outcome.error,
    )
