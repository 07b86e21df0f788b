"""Compares the servers with the directory. Careful by rule: it drops only what an undone sign-up left behind.

A database without an owner in the directory may be all that is left of a practice (a central database restored to
yesterday): it is closed and reported, never dropped. Databases without this fleet's stamp are not even looked at.
"""

import uuid
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import Engine

from shared.logs import describe_fault, get_logger
from shared.shards import ShardName
from tenant_service import shard_database
from tenant_service.central import reconciliation_locked
from tenant_service.provisioning import Provisioning
from tenant_service.servers import FAULTS, ServerRegistry
from tenant_service.shard_database import StampedDatabase
from tenant_service.storage import changes, directory
from tenant_service.storage.directory import ShardState

MOST_ORPHANS = 5
MOST_ORPHANS_SHARE = 0.01
"""More orphans at once than both mean that the directory is wrong, not the databases."""
_log = get_logger()


class Findings(NamedTuple):
    """What the servers hold that the directory doesn't know, and the other way round."""

    stamped: int
    orphans: dict[ShardName, StampedDatabase]
    lost: set[ShardName]

    def confirmed_by(self, later: "Findings") -> "Findings":
        """Without what was on its way only."""
        both = {name: orphan for name, orphan in self.orphans.items() if name in later.orphans}
        return Findings(later.stamped, both, self.lost & later.lost)


class Reconciler:
    """One sweep at a time in the whole fleet."""

    def __init__(
        self, engine: Engine, servers: ServerRegistry, provisioning: Provisioning, *, metrics: CollectorRegistry
    ) -> None:
        self._engine = engine
        self._servers = servers
        self._provisioning = provisioning
        self._states = Gauge("gowebbo_shards", "Directory rows by state.", ["state"], registry=metrics)
        self._orphans = Gauge("gowebbo_shard_orphans", "Open databases the directory doesn't know.", registry=metrics)
        self._lost = Gauge("gowebbo_shards_lost", "Ready shards without a database.", registry=metrics)
        self._known_lost: set[ShardName] = set()

    def sweep(self) -> bool:
        """Does all there is to do; false when another process is at it. Raises what servers.FAULTS lists."""
        with reconciliation_locked(self._engine) as mine:
            if not mine:
                return False
            self._provisioning.resume_releases()
            with self._engine.begin() as connection:
                fleet_id = directory.fleet_id(connection)
                changes.prune_changes(connection)
            self._judge(self._look(fleet_id))
            self._count()
        return True

    def _look(self, fleet_id: uuid.UUID) -> Findings:
        found = Findings(0, {}, set())
        for key in sorted(self._servers.usable):
            try:
                one = self._look_at(key, fleet_id)
            except FAULTS as fault:
                _log.warning("shard_server_not_swept", server=key, **describe_fault(fault))
                continue
            found = Findings(found.stamped + one.stamped, found.orphans | one.orphans, found.lost | one.lost)
        return found

    def _look_at(self, key: str, fleet_id: uuid.UUID) -> Findings:
        found = self._compare(key, fleet_id)
        # looked at twice: between the two lists of one look, shards come and go
        return found.confirmed_by(self._compare(key, fleet_id)) if found.orphans or found.lost else found

    def _compare(self, key: str, fleet_id: uuid.UUID) -> Findings:
        """Compares one server with its rows. Closed orphans are dealt with; what stands open in quarantine is not."""
        with self._servers.admin(key).session() as session:
            stamped = shard_database.stamped_with(session, fleet_id)
        with self._engine.begin() as connection:
            ownerless = stamped.keys() - directory.owned_among(connection, stamped.keys())
            ready = directory.ready_on(connection, key)
        return Findings(
            len(stamped),
            {ShardName(key, name): stamped[name] for name in ownerless if stamped[name].open},
            {ShardName(key, name) for name in ready - stamped.keys()},
        )

    def _judge(self, found: Findings) -> None:
        for name in found.lost - self._known_lost:
            _log.error("ready_shard_has_no_database", shard=str(name))
        self._known_lost = found.lost
        self._lost.set(len(found.lost))
        self._orphans.set(len(found.orphans))
        if len(found.orphans) > max(MOST_ORPHANS, found.stamped * MOST_ORPHANS_SHARE):
            _log.error("sweep_stopped_too_many_orphans", orphans=len(found.orphans), databases=found.stamped)
            return
        for name, orphan in found.orphans.items():
            try:
                if orphan.practice_id is None or not self._provisioning.drop_leftover(orphan.practice_id, name):
                    self._quarantine(name, orphan.practice_id)
            except FAULTS as fault:
                _log.warning("orphan_not_settled", shard=str(name), **describe_fault(fault))

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
