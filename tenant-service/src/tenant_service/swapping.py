"""A copy takes the place of the live shard, which becomes a copy itself: done twice, all is as it was.

Names and stamps are exchanged in one transaction of the server, so the directory needs no change. An interrupted swap
is known by what the copy's database was when it began, and ended or begun anew.
"""

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import psycopg2
import psycopg2.errors
from sqlalchemy import Engine

from shared.logs import get_logger
from tenant_service import migrating, shard_copy, shard_database, shard_migration
from tenant_service.comparing import Comparing, Pair
from tenant_service.exceptions import (
    DeedPostponedError,
    DeedRefusedError,
    FenceLeakyError,
    ShardServerUnavailableError,
)
from tenant_service.jobs import Progress
from tenant_service.server_admin import AdminSession
from tenant_service.servers import ServerRegistry
from tenant_service.storage import copies, directory
from tenant_service.storage.copies import CopyOrigin
from tenant_service.storage.directory import Fence

KIND = "swap-copy"
_log = get_logger()


class Swapping:
    """The deed of the jobs of this kind. Blocking; safe to share among threads and replicas."""

    def __init__(self, engine: Engine, servers: ServerRegistry, comparing: Comparing, *, kept_for: timedelta) -> None:
        """`kept_for`: how long what was live is kept."""
        self._engine = engine
        self._servers = servers
        self._comparing = comparing
        self._kept_for = kept_for

    def run(self, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """Swaps. Raises DeedRefusedError when nothing was changed, DeedPostponedError when it can't be said now."""
        pair = self._comparing.pair(uuid.UUID(arguments["practice_id"]), arguments["database"])
        practice_id = pair.shard.practice_id
        if pair.copy.server != pair.shard.name.server:
            raise DeedRefusedError(
                f"The copy is on server {pair.copy.server}: the practice is on {pair.shard.name.server}."
            )
        try:
            with self._both_locked(pair) as session:
                rows = self._swap(session, pair)
        except (psycopg2.Error, ShardServerUnavailableError, FenceLeakyError) as fault:
            raise DeedPostponedError from fault
        progress.note(1, 1)
        _log.info("copy_swapped", practice_id=str(practice_id), shard=str(pair.copy.name))
        return {"practice": str(practice_id), "database": pair.copy.database, "rows": rows}

    @contextlib.contextmanager
    def _both_locked(self, pair: Pair) -> Iterator[AdminSession]:
        admin = self._servers.admin(pair.copy.server)
        with admin.locked(pair.shard.name.database) as session, admin.locked(pair.copy.database):
            yield session

    def _swap(self, session: AdminSession, pair: Pair) -> int:
        live, copy, practice_id = pair.shard.name.database, pair.copy.database, pair.shard.practice_id
        begun_with = pair.copy.swap_oid
        if begun_with is None or shard_database.oid_of(session, live) != begun_with:
            self._check(pair)
            with self._engine.begin() as connection:
                copies.note_swap(connection, pair.copy.name, shard_database.oid_of(session, copy))
                directory.set_fence(connection, practice_id, Fence.MOVING)
            try:
                shard_database.fence(session, live)
                shard_database.exchange(session, live, copy, practice_id=practice_id)
            except psycopg2.errors.ObjectInUse as fault:
                self._undo(session, pair)
                raise DeedRefusedError("A superuser is connected to one of the two: end that session.") from fault
            except BaseException:
                self._undo(session, pair)
                raise
        put_aside = pair.copy._replace(origin=CopyOrigin.SWAPPED, swap_oid=None)
        with self._engine.begin() as connection:
            copies.insert_copy(connection, put_aside, kept_for=self._kept_for)
            directory.note_revision(connection, practice_id, migrating.head(migrating.SHARD))
            directory.lift_fence(connection, practice_id, Fence.MOVING.family)
        with contextlib.closing(shard_copy.connect(pair.live_access, live)) as source:
            return sum(shard_copy.counts(source).values())

    def _check(self, pair: Pair) -> None:
        """Only what is what it should be takes a shard's place."""
        found = shard_migration.look(pair.copy_access, pair.copy.database)
        if found.drift:
            raise DeedRefusedError(f"The copy isn't what it should be: {found.drift}")
        if found.revision != migrating.head(migrating.SHARD):
            raise DeedRefusedError(f"The copy is at revision {found.revision}: restore the backup again.")
        if pair.shard.fence is not None and pair.shard.fence != Fence.MOVING:
            raise DeedRefusedError(f"The practice's database is fenced: {pair.shard.fence}.")

    def _undo(self, session: AdminSession, pair: Pair) -> None:
        """As far as the server can be asked; else the next attempt begins anew."""
        with contextlib.suppress(psycopg2.Error):
            shard_database.lift_fence(session, pair.shard.name.database)
            with self._engine.begin() as connection:
                directory.lift_fence(connection, pair.shard.practice_id, Fence.MOVING.family)
                copies.note_swap(connection, pair.copy.name, None)
