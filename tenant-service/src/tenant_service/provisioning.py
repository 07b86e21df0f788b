"""A shard for a practice, and the undoing of one. Directory first, then the server: each step survives kill -9.

Named states: no row → `creating` (the name is committed before anything bears it) → `ready`; or → `undone`.
"""

import uuid

from sqlalchemy import Engine

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
from tenant_service.storage import directory, registry
from tenant_service.storage.directory import Shard, ShardState

_log = get_logger()


class Provisioning:
    """Makes and undoes shards. Blocking; safe to share among threads and replicas."""

    def __init__(self, engine: Engine, servers: ServerRegistry, *, shard_key: bytes) -> None:
        self._engine = engine
        self._servers = servers
        self._shard_key = shard_key

    def find(self, practice_id: uuid.UUID) -> Shard:
        """The practice's shard. Raises ShardUnknownError, ShardNotReadyError or ShardQuarantinedError."""
        with self._engine.begin() as connection:
            shard = directory.find_shard(connection, practice_id)
        if shard is None or shard.state is ShardState.UNDONE:
            raise ShardUnknownError
        if shard.state is ShardState.CREATING:
            raise ShardNotReadyError(retry_after_s=1)
        return _usable(shard)

    def ensure(self, practice_id: uuid.UUID) -> tuple[Shard, bool]:
        """The practice's shard, and whether it was made now. Goes on where an interrupted call stopped.

        Raises ShardUndoneError, ShardQuarantinedError, NoServerAvailableError, or OperationalError of a server.
        """
        shard, fleet_id = self._reserve(practice_id)
        if shard.state is ShardState.READY:
            return shard, False
        server, database = shard.name
        if server not in self._servers.usable:
            raise ShardServerUnavailableError(retry_after_s=2)
        with self._servers.admin(server).locked(database) as session:
            # what was true before the wait for the lock may be over
            if self._reserve(practice_id)[0].state is ShardState.READY:
                return shard._replace(state=ShardState.READY), False
            shard_database.clone(session, database, template=templates.template_name())
            shard_database.open_to_its_role(
                session, database, practice_id=practice_id, fleet_id=fleet_id, key=self._shard_key
            )
            with self._engine.begin() as connection:
                if not directory.mark_ready(connection, practice_id):
                    raise ShardUndoneError  # meanwhile; whoever undid it waits for the lock
        return shard._replace(state=ShardState.READY), True

    def _reserve(self, practice_id: uuid.UUID) -> tuple[Shard, uuid.UUID]:
        """The directory row, made if absent. A warm pool's shards would be claimed here."""
        with self._engine.begin() as connection:
            shard = directory.find_shard(connection, practice_id)
            if shard is None:
                server = choose_server(registry.list_servers(connection), usable=self._servers.usable)
                place = ShardName(server.key, new_database_name())
                revision = migrating.head(migrating.SHARD)
                directory.insert_shard(
                    connection, practice_id, place=place, state=ShardState.CREATING, revision=revision
                )
                shard = directory.find_shard(connection, practice_id)
                assert shard
            return _usable(shard), directory.fleet_id(connection)

    def release(self, practice_id: uuid.UUID) -> Shard:
        """Undoes a sign-up's shard, for auth-service, which knows that the practice never became active.

        Repeatable; a later `ensure` is refused. A database that holds rows is never dropped but quarantined.
        """
        with self._engine.begin() as connection:
            shard = directory.mark_undone(connection, practice_id)
        return self._drop(shard)

    def resume_releases(self) -> None:
        """Finishes what interrupted calls of `release` left."""
        with self._engine.begin() as connection:
            shards = directory.unfinished_releases(connection)
        for shard in shards:
            try:
                self._drop(shard)
            except (*FAULTS, ShardServerUnavailableError) as fault:  # one that resists must not keep the others
                _log.warning("release_not_finished", practice_id=str(shard.practice_id), **describe_fault(fault))

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

    def _drop(self, shard: Shard) -> Shard:
        """Drops what is left of an undone shard. One that holds rows is closed and quarantined instead."""
        if shard.state is not ShardState.UNDONE or shard.database is None:
            return shard
        practice_id, name = shard.practice_id, shard.name
        with self._servers.admin(name.server).locked(name.database) as session:
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
