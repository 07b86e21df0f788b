"""Shards made ahead, so that a sign-up needs no clone. Their rows own their databases until a practice claims them.

Named states: `making` (the name is committed before anything bears it) → `ready` (cloned and furnished, closed) →
claimed, in the transaction that adds the practice's row; or → `dropping`, when the schema has a newer revision or the
server is drained. What an interruption leaves is settled by the reconciler's next sweep.
"""

import contextlib
import uuid
from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import Engine

from shared.logs import describe_fault, get_logger
from shared.shards import ShardName, new_database_name
from tenant_service import migrating, shard_database, templates
from tenant_service.server_admin import AdminSession, ServerAdmin
from tenant_service.servers import FAULTS, ServerRegistry
from tenant_service.storage import directory, registry, warm
from tenant_service.storage.registry import Server, ServerState
from tenant_service.storage.warm import WarmShard, WarmState

ROUND_EVERY_S = 10.0
"""A round that nothing woke: what failed before, or another replica's claims."""
RATE_OVER_S = 30.0
MOST_TIMES = 8
DROPS_PER_SWEEP = 5
"""Each waits for a checkpoint, and everything else that the reconciler does waits for it."""
_log = get_logger()


def wanted(size: int, claimed: int) -> int:
    """How many ready shards a server is to have: as many as were claimed in half a minute, within bounds."""
    return min(max(size, claimed), size * MOST_TIMES)


class _Admins(contextlib.ExitStack):
    """A refill's own way to each server, which ends with it."""

    def __init__(self, servers: ServerRegistry) -> None:
        super().__init__()
        self._servers = servers
        self._known: dict[str, ServerAdmin] = {}

    def __getitem__(self, key: str) -> ServerAdmin:
        """Raises ShardServerUnavailableError."""
        if key not in self._known:
            self._known[key] = self.enter_context(self._servers.admin(key).apart())
        return self._known[key]


class WarmPool:
    """Makes shards ahead, and settles those that nobody is to have. Blocking; safe to share among threads."""

    def __init__(
        self,
        engine: Engine,
        servers: ServerRegistry,
        *,
        size: int,
        shard_key: bytes,
        metrics: CollectorRegistry,
        is_rush: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_rush` says whether sign-ups wait for their shards: these come first."""
        self._engine = engine
        self._servers = servers
        self._size = size
        self._shard_key = shard_key
        self._is_rush = is_rush
        self._stopped = False
        self._states = Gauge(
            "gowebbo_warm_shards", "Shards made ahead, by server and state.", ["server", "state"], registry=metrics
        )

    def stop(self) -> None:
        """Begins no further shard."""
        self._stopped = True

    def refill(self) -> bool:
        """Makes what is missing, one by one and the servers in turn; false when a server failed or none is known yet.

        A rush ends it: a shard made ahead takes as much of the server as one that somebody waits for, and whoever was
        served last wakes it again.

        Raises OperationalError when the central database can't be reached.
        """
        usable = self._servers.usable
        failed: set[str] = set()
        busy = self._size > 0
        with _Admins(self._servers) as admins:
            while busy and not (self._stopped or self._is_rush()):
                busy = False
                for server in self._open_servers(usable - failed):
                    try:
                        busy |= self._make_one(server, admins)
                    except FAULTS as fault:
                        failed.add(server.key)
                        _log.warning("warm_shard_not_made", server=server.key, **describe_fault(fault))
        self._count(usable)
        return bool(usable) and not failed

    def _open_servers(self, keys: Iterable[str]) -> list[Server]:
        with self._engine.begin() as connection:
            known = registry.list_servers(connection)
        return [server for server in known if server.key in keys and server.state is ServerState.OPEN]

    def _make_one(self, server: Server, admins: "_Admins") -> bool:
        """Makes a shard if one is missing; whether it did."""
        place, revision = ShardName(server.key, new_database_name()), migrating.head(migrating.SHARD)
        known = migrating.shard_revisions()
        with self._engine.begin() as connection:
            warm.lock_pool(connection)
            there = [one for one in warm.list_warm(connection) if one.server == server.key]
            if any(one.revision not in known for one in there):
                return False  # a newer release makes them, and would drop ours
            claimed = warm.claimed_within(connection, server.key, seconds=RATE_OVER_S)
            enough = min(wanted(self._size, claimed), server.capacity - server.practices)
            if sum(one.revision == revision and one.state is not WarmState.DROPPING for one in there) >= enough:
                return False
            warm.insert_making(connection, place, revision=revision)
            fleet_id = directory.fleet_id(connection)
        with admins[place.server].locked(place.database) as session:
            self._finish(session, place, fleet_id)
        return True

    def _finish(self, session: AdminSession, place: ShardName, fleet_id: uuid.UUID) -> bool:
        """Goes on with what stands at `making`, however far it is; whether it is ready now."""
        with self._engine.begin() as connection:
            row = warm.find_warm(connection, place.database)
        # what was true before the wait for the lock may be over
        if row is None or row.state is not WarmState.MAKING or self._turned_out_claimed(session, place):
            return False
        shard_database.clone(session, place.database, template=templates.template_name())
        shard_database.furnish(session, place.database, fleet_id=fleet_id, key=self._shard_key)
        with self._engine.begin() as connection:
            return warm.mark_ready(connection, place.database)

    def settle(self) -> Counter[str]:
        """Finishes or drops what interruptions, newer revisions and drained servers left. What it did, counted.

        For the reconciler, which is alone at it.
        """
        deeds: Counter[str] = Counter()
        usable, head = self._servers.usable, migrating.head(migrating.SHARD)
        with self._engine.begin() as connection:
            fleet_id = directory.fleet_id(connection)
            for server in registry.list_servers(connection):
                older = set(migrating.shard_revisions()[:-1])
                revisions = older | {head} if server.state is ServerState.DRAINING else older
                warm.discard(connection, server.key, revisions=revisions)
            rows = [row for row in warm.list_warm(connection) if row.server in usable]
        left = [row for row in rows if row.state is WarmState.MAKING and row.revision == head]
        dropping = [row for row in rows if row.state is WarmState.DROPPING][:DROPS_PER_SWEEP]
        for row in left + dropping:
            try:
                deeds.update(self._settle(row, fleet_id))
            except FAULTS as fault:  # one that resists must not keep the others
                _log.warning("warm_shard_not_settled", shard=str(row.name), **describe_fault(fault))
        return deeds

    def _settle(self, row: WarmShard, fleet_id: uuid.UUID) -> list[str]:
        """The deed's name, if there was one."""
        with self._servers.admin(row.server).locked_if_free(row.database) as session:
            if session is None:
                return []  # it is being made just now
            if row.state is WarmState.MAKING:
                return ["warm_shard_finished"] if self._finish(session, row.name, fleet_id) else []
            if self._turned_out_claimed(session, row.name):
                return []
            shard_database.drop(session, row.database)
            with self._engine.begin() as connection:
                warm.forget(connection, [row.database])
        return ["warm_shard_dropped"]

    def _turned_out_claimed(self, session: AdminSession, place: ShardName) -> bool:
        """Forgets a row whose database may be a practice's: the directory was restored to an older state.

        The last line of defence: whatever went wrong before, such a database is neither handed out nor dropped.
        """
        found = shard_database.find(session, place.database)
        if found is None or not found.was_claimed:
            return False
        with self._engine.begin() as connection:
            warm.forget(connection, [place.database])
        _log.error("warm_shard_was_claimed_before", shard=str(place), practice_id=found.practice_stamp)
        return True

    def _count(self, servers: Iterable[str]) -> None:
        with self._engine.begin() as connection:
            counts = Counter((row.server, row.state) for row in warm.list_warm(connection))
        for server in servers:
            for state in WarmState:
                self._states.labels(server, state).set(counts[server, state])
