"""A shard for a practice, and the undoing of one. Directory first, then the server: each step survives kill -9.

Named states: no row → `creating` (a shard of the warm pool is claimed, or a name committed that nothing bears yet) →
`ready`; or → `undone`.
"""

import uuid

from prometheus_client import CollectorRegistry, Counter
from sqlalchemy import Engine

from shared.errors import ShardMaintenanceError
from shared.logs import describe_fault, get_logger
from shared.shards import ShardName, new_database_name
from tenant_service import migrating, shard_database, templates
from tenant_service.exceptions import (
    ShardNotReadyError,
    ShardQuarantinedError,
    ShardServerUnavailableError,
    ShardUndoneError,
    ShardUnknownError,
)
from tenant_service.placement import choose_server
from tenant_service.server_admin import AdminSession
from tenant_service.servers import FAULTS, ServerRegistry
from tenant_service.shard_database import StampedDatabase
from tenant_service.storage import directory, registry, warm
from tenant_service.storage.directory import Fence, Shard, ShardState

MOVING_RETRY_AFTER_S = 1
"""A move fences for less than two seconds."""
_log = get_logger()


class Provisioning:
    """Makes and undoes shards. Blocking; safe to share among threads and replicas."""

    def __init__(
        self, engine: Engine, servers: ServerRegistry, *, shard_key: bytes, metrics: CollectorRegistry
    ) -> None:
        self._engine = engine
        self._servers = servers
        self._shard_key = shard_key
        self._handed_out = Counter(
            "gowebbo_shards_handed_out",
            "Shards given to practices, by when they were made.",
            ["made"],
            registry=metrics,
        )

    def find(self, practice_id: uuid.UUID) -> Shard:
        """The practice's shard, for everyday use.

        Raises ShardUnknownError, ShardNotReadyError, ShardQuarantinedError or ShardMaintenanceError.
        """
        with self._engine.begin() as connection:
            shard = directory.find_shard(connection, practice_id)
        if shard is None or shard.state is ShardState.UNDONE:
            raise ShardUnknownError
        if shard.state is ShardState.CREATING:
            raise ShardNotReadyError(retry_after_s=1)
        if shard.fence == Fence.MOVING:
            raise ShardMaintenanceError(retry_after_s=MOVING_RETRY_AFTER_S)
        if shard.fence is not None:
            raise ShardMaintenanceError
        return _usable(shard)

    def ensure(self, practice_id: uuid.UUID) -> tuple[Shard, bool]:
        """The practice's shard, and whether it was made now. Goes on where an interrupted call stopped.

        Raises ShardUndoneError, ShardQuarantinedError, NoServerAvailableError, or OperationalError of a server.
        """
        shard, fleet_id = self._reserve(practice_id)
        while shard.state is not ShardState.READY:
            try:
                return self._complete(shard, fleet_id)
            except _StrangersDatabaseError:
                self._place_anew(shard)
                shard, fleet_id = self._reserve(practice_id)
            except FAULTS as fault:
                self._servers.doubt(shard.name.server, fault)
                raise
        return shard, False

    def _reserve(self, practice_id: uuid.UUID) -> tuple[Shard, uuid.UUID]:
        """The practice's row, made if absent: at a shard that was made ahead, or with a name of its own."""
        with self._engine.begin() as connection:
            fleet_id, shard = directory.fleet_id_and_shard(connection, practice_id)
            if shard is None:
                server = choose_server(registry.list_servers(connection), usable=self._servers.usable)
                revision = migrating.head(migrating.SHARD)
                place = warm.claim(
                    connection, practice_id, server=server.key, revision=revision, otherwise=new_database_name()
                )
                if place:
                    return Shard(practice_id, *place, ShardState.CREATING, revision), fleet_id
                shard = directory.find_shard(connection, practice_id)  # another call was faster
                assert shard
            return _usable(shard), fleet_id

    def _complete(self, shard: Shard, fleet_id: uuid.UUID) -> tuple[Shard, bool]:
        """Does what is missing on the server, then marks the row. Raises _StrangersDatabaseError before any of it."""
        practice_id, (server, database) = shard.practice_id, shard.name
        if server not in self._servers.usable:
            raise ShardServerUnavailableError(retry_after_s=2)
        with self._servers.admin(server).locked(database) as session:
            found = shard_database.find(session, database)
            if found is None:
                # what was true before the wait for the lock may be over
                if self._reserve(practice_id)[0].state is ShardState.READY:
                    return shard._replace(state=ShardState.READY), False
                shard_database.clone(session, database, template=templates.template_name())
            elif not _may_be_of(found, practice_id, fleet_id):
                raise _StrangersDatabaseError
            if found is None or found.fleet_stamp is None:
                shard_database.open_to_its_role(
                    session, database, practice_id=practice_id, fleet_id=fleet_id, key=self._shard_key
                )
            elif not found.open:
                shard_database.hand_over(session, database, practice_id=practice_id)
            with self._engine.begin() as connection:
                if not directory.mark_ready(connection, practice_id):
                    raise ShardUndoneError  # meanwhile; whoever undid it waits for the lock
        made = found is None or not found.open
        if made:
            self._handed_out.labels("ahead" if found and found.fleet_stamp else "on_demand").inc()
        return shard._replace(state=ShardState.READY), made

    def _place_anew(self, shard: Shard) -> None:
        """Gives the practice a place that nothing bears yet, unless another call has done so.

        A directory restored to an older state tells of places that were given away since. The reconciler sees to that
        one, which no row owns any more.
        """
        _log.error("claimed_shard_was_claimed_before", practice_id=str(shard.practice_id), shard=str(shard.name))
        with self._engine.begin() as connection:
            directory.replace_database(connection, shard.practice_id, shard.name.database, by=new_database_name())

    def release(self, practice_id: uuid.UUID) -> Shard:
        """Undoes a sign-up's shard, for auth-service, which knows that the practice never became active.

        Repeatable; a later `ensure` is refused. A database that holds rows is never dropped but quarantined.
        """
        with self._engine.begin() as connection:
            shard = directory.mark_undone(connection, practice_id)
        return self._drop(shard)

    def resume_releases(self) -> int:
        """Finishes what interrupted calls of `release` left; how many."""
        with self._engine.begin() as connection:
            shards = directory.unfinished_releases(connection)
        finished = 0
        for shard in shards:
            try:
                finished += self._drop(shard) != shard
            except (*FAULTS, ShardServerUnavailableError) as fault:  # one that resists must not keep the others
                _log.warning("release_not_finished", practice_id=str(shard.practice_id), **describe_fault(fault))
        return finished

    def drop_leftover(self, practice_id: uuid.UUID, place: ShardName) -> bool:
        """Drops a database that an undone sign-up left and the directory forgot; false when it must be kept."""
        with self._engine.begin() as connection:
            shard = directory.find_shard(connection, practice_id)
        if shard is None or shard.state is not ShardState.UNDONE or shard.database is not None:
            return False
        with self._servers.admin(place.server).locked(place.database) as session:
            dropped = _drop_unless_used(session, place.database)
        if dropped:
            _log.info("leftover_dropped", practice_id=str(practice_id), shard=str(place))
        return dropped

    def drop_unclaimed(self, place: ShardName) -> bool:
        """Drops a shard that was made ahead, bears no practice's stamp and is in no row; false when it must be kept."""
        with self._servers.admin(place.server).locked(place.database) as session:
            found = shard_database.find(session, place.database)
            with self._engine.begin() as connection:
                known = directory.is_known(connection, place.database) or warm.find_warm(connection, place.database)
            if found is None or found.was_claimed or known:
                return False
            shard_database.drop(session, place.database)
        _log.info("unclaimed_shard_dropped", shard=str(place))
        return True

    def _drop(self, shard: Shard) -> Shard:
        """Drops what is left of an undone shard. One that holds rows is closed and quarantined instead.

        One that is somebody else's is none of its business (as in `ensure`).
        """
        if shard.state is not ShardState.UNDONE or shard.database is None:
            return shard
        practice_id, name = shard.practice_id, shard.name
        with self._servers.admin(name.server).locked(name.database) as session:
            found = shard_database.find(session, name.database)
            with self._engine.begin() as connection:
                if found and not _may_be_of(found, practice_id, directory.fleet_id(connection)):
                    directory.forget_place(connection, practice_id)
                    _log.error("undone_shard_was_claimed_before", practice_id=str(practice_id), shard=str(name))
                    return shard._replace(server=None, database=None)
            if _drop_unless_used(session, name.database):
                with self._engine.begin() as connection:
                    directory.forget_place(connection, practice_id)
                _log.info("shard_released", practice_id=str(practice_id), shard=str(name))
                return shard._replace(server=None, database=None)
            # the row first: an undone row beside a closed database would let the next round drop it
            with self._engine.begin() as connection:
                directory.mark_quarantined(connection, practice_id)
            shard_database.close(session, name.database)
        _log.error("undone_shard_holds_rows", practice_id=str(practice_id), shard=str(name))
        return shard._replace(state=ShardState.QUARANTINED)


class _StrangersDatabaseError(Exception):
    """The database at the practice's place is, or may be, somebody else's."""


def _may_be_of(found: StampedDatabase, practice_id: uuid.UUID, fleet_id: uuid.UUID) -> bool:
    """Whether a database at the practice's place is the practice's already, or nobody's yet."""
    if found.practice_stamp is not None:
        return found.practice_id == practice_id
    return not found.open and found.fleet_stamp in (None, str(fleet_id))


def _drop_unless_used(session: AdminSession, database: str) -> bool:
    """Drops it when it is empty. The last line of defence: whatever went wrong before, no patient is dropped."""
    shard_database.lock_out(session, database)
    if shard_database.holds_rows(session, database):
        return False
    shard_database.drop(session, database)
    return True


def _usable(shard: Shard) -> Shard:
    if shard.state is ShardState.UNDONE:
        raise ShardUndoneError
    if shard.state is ShardState.QUARANTINED:
        raise ShardQuarantinedError(retry_after_s=60)
    return shard
