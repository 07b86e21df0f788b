"""Compares the servers with the directory. Careful by rule: it drops only what no practice ever had.

That is what an undone sign-up left behind, and what was made ahead and never claimed. Any other database without an
owner in the directory may be all that is left of a practice (a central database restored to yesterday): it is closed
and reported, never dropped. Databases without this fleet's stamp are not even looked at.
"""

import uuid
from collections import Counter
from typing import NamedTuple

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import Engine

from shared.logs import describe_fault, get_logger
from shared.shards import ShardName
from tenant_service import shard_database
from tenant_service.central import reconciliation_locked
from tenant_service.copy_keeping import drop_copy
from tenant_service.exceptions import ShardServerUnavailableError
from tenant_service.provisioning import Provisioning
from tenant_service.servers import FAULTS, ServerRegistry
from tenant_service.shard_database import StampedDatabase
from tenant_service.storage import changes, copies, directory, warm
from tenant_service.storage.directory import ShardState
from tenant_service.storage.warm import WarmState
from tenant_service.warm_pool import WarmPool

MOST_ORPHANS = 5
MOST_ORPHANS_SHARE = 0.01
"""More orphans at once than both mean that the directory is wrong, not the databases. Each kind counts for itself."""
MOST_COPIES_DROPPED = 5
_log = get_logger()


class Findings(NamedTuple):
    """What the servers hold that the directory doesn't know, and the other way round."""

    stamped: int
    orphans: dict[ShardName, StampedDatabase]
    """Open, or closed and never claimed. What is closed and was claimed is in quarantine."""
    lost: set[ShardName]
    untrue: set[ShardName]
    """Rows of the warm pool whose database is gone or was claimed: the directory was restored to an older state."""

    def confirmed_by(self, later: "Findings") -> "Findings":
        """Without what was on its way only."""
        both = {name: orphan for name, orphan in self.orphans.items() if name in later.orphans}
        return Findings(later.stamped, both, self.lost & later.lost, self.untrue & later.untrue)

    def __bool__(self) -> bool:
        """Whether there is anything to settle."""
        return bool(self.orphans or self.lost or self.untrue)


class Reconciler:
    """One sweep at a time in the whole fleet."""

    def __init__(
        self,
        engine: Engine,
        servers: ServerRegistry,
        provisioning: Provisioning,
        pool: WarmPool,
        *,
        metrics: CollectorRegistry,
    ) -> None:
        self._engine = engine
        self._servers = servers
        self._provisioning = provisioning
        self._pool = pool
        self._states = Gauge("gowebbo_shards", "Directory rows by state.", ["state"], registry=metrics)
        self._orphans = Gauge("gowebbo_shard_orphans", "Databases the directory doesn't know.", registry=metrics)
        self._lost = Gauge("gowebbo_shards_lost", "Ready shards without a database.", registry=metrics)
        self._done = prometheus_client.Counter(
            "gowebbo_reconciler_deeds", "What sweeps have settled.", ["deed"], registry=metrics
        )
        self._known_lost: set[ShardName] = set()

    def sweep(self) -> bool:
        """Does all there is to do; false when another process is at it. Raises what servers.FAULTS lists."""
        with reconciliation_locked(self._engine) as mine:
            if not mine:
                return False
            deeds = Counter({"release_finished": self._provisioning.resume_releases()})
            with self._engine.begin() as connection:
                fleet_id = directory.fleet_id(connection)
                changes.prune_changes(connection)
            deeds.update(self._judge(self._look(fleet_id)))
            deeds.update(self._pool.settle())
            deeds.update(self._drop_copies())
            self._count()
        self._tell(+deeds)
        return True

    def _look(self, fleet_id: uuid.UUID) -> Findings:
        found = Findings(0, {}, set(), set())
        for key in sorted(self._servers.usable):
            try:
                one = self._look_at(key, fleet_id)
            except FAULTS as fault:
                _log.warning("shard_server_not_swept", server=key, **describe_fault(fault))
                continue
            found = Findings(
                found.stamped + one.stamped,
                found.orphans | one.orphans,
                found.lost | one.lost,
                found.untrue | one.untrue,
            )
        return found

    def _look_at(self, key: str, fleet_id: uuid.UUID) -> Findings:
        found = self._compare(key, fleet_id)
        # looked at twice: between the two lists of one look, shards come and go
        return found.confirmed_by(self._compare(key, fleet_id)) if found else found

    def _compare(self, key: str, fleet_id: uuid.UUID) -> Findings:
        """Compares one server with its rows. Closed orphans are dealt with; what stands open in quarantine is not."""
        with self._servers.admin(key).session() as session:
            stamped = shard_database.stamped_with(session, fleet_id)
        with self._engine.begin() as connection:
            owned = directory.owned_among(connection, stamped.keys())
            owned |= copies.copies_among(connection, key, stamped.keys())
            ready = directory.ready_on(connection, key)
            pool = warm.list_warm(connection)
        claimed = {name for name, database in stamped.items() if database.was_claimed}
        made_ahead = {row.database for row in pool} - claimed
        settled = {name for name in claimed if not stamped[name].open}
        untrue = {row.name for row in pool if row.database in claimed} | {
            row.name
            for row in pool
            if row.server == key and row.state is WarmState.READY and row.database not in stamped
        }
        return Findings(
            len(stamped),
            {ShardName(key, name): stamped[name] for name in stamped.keys() - owned - made_ahead - settled},
            {ShardName(key, name) for name in ready - stamped.keys()},
            untrue,
        )

    def _judge(self, found: Findings) -> Counter[str]:
        """Settles what was found; what it did, counted."""
        deeds: Counter[str] = Counter()
        for name in found.lost - self._known_lost:
            _log.error("ready_shard_has_no_database", shard=str(name))
        self._known_lost = found.lost
        self._lost.set(len(found.lost))
        self._orphans.set(len(found.orphans))
        self._forget(found.untrue, deeds)
        claimed = {name: orphan for name, orphan in found.orphans.items() if orphan.was_claimed}
        unclaimed = {name: orphan for name, orphan in found.orphans.items() if not orphan.was_claimed}
        for orphans, event in (
            (claimed, "sweep_stopped_too_many_orphans"),
            (unclaimed, "sweep_stopped_too_many_unclaimed"),
        ):
            if len(orphans) > max(MOST_ORPHANS, found.stamped * MOST_ORPHANS_SHARE):
                _log.error(event, orphans=len(orphans), databases=found.stamped)
            else:
                deeds.update(self._settle_all(orphans))
        return deeds

    def _settle_all(self, orphans: dict[ShardName, StampedDatabase]) -> Counter[str]:
        deeds: Counter[str] = Counter()
        for name, orphan in orphans.items():
            try:
                deeds.update(self._settle(name, orphan))
            except FAULTS as fault:
                _log.warning("orphan_not_settled", shard=str(name), **describe_fault(fault))
        return deeds

    def _forget(self, untrue: set[ShardName], deeds: Counter[str]) -> None:
        """They are not handed out any more; their databases, where there are any, are orphans."""
        if untrue:
            with self._engine.begin() as connection:
                warm.forget(connection, [name.database for name in untrue])
            _log.error("warm_shards_forgotten", shards=sorted(map(str, untrue)))
        deeds["warm_row_forgotten"] += len(untrue)

    def _settle(self, name: ShardName, orphan: StampedDatabase) -> list[str]:
        """The deed's name, if there was one."""
        if not orphan.was_claimed:
            return ["unclaimed_shard_dropped"] if self._provisioning.drop_unclaimed(name) else []
        if orphan.practice_id is not None and self._provisioning.drop_leftover(orphan.practice_id, name):
            return ["leftover_dropped"]
        self._quarantine(name, orphan.practice_id)
        return ["orphan_quarantined"]

    def _drop_copies(self) -> Counter[str]:
        """Those whose time is over or whose maker is gone; few at a time, since each drop waits for a checkpoint."""
        deeds: Counter[str] = Counter()
        with self._engine.begin() as connection:
            superfluous = copies.superfluous_copies(connection, limit=MOST_COPIES_DROPPED)
        for copy in superfluous:
            try:
                deeds["copy_dropped"] += drop_copy(self._engine, self._servers, copy)
            except (*FAULTS, ShardServerUnavailableError) as fault:
                _log.warning("copy_not_dropped", shard=str(copy.name), **describe_fault(fault))
        return deeds

    def _quarantine(self, name: ShardName, practice_id: uuid.UUID | None) -> None:
        if practice_id is not None:
            with self._engine.begin() as connection:
                directory.insert_shard(connection, practice_id, place=name, state=ShardState.QUARANTINED)
        with self._servers.admin(name.server).locked(name.database) as session:
            shard_database.close(session, name.database)
        _log.error("orphan_quarantined", practice_id=str(practice_id), shard=str(name))

    def _count(self) -> None:
        with self._engine.begin() as connection:
            counts = directory.count_states(connection)
        for state in ShardState:
            self._states.labels(state).set(counts.get(state, 0))

    def _tell(self, deeds: Counter[str]) -> None:
        for deed, count in deeds.items():
            self._done.labels(deed).inc(count)
        if deeds:
            _log.info("sweep_settled", deeds=dict(deeds))
