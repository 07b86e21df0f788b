"""A backup into a database beside the live shard: a copy that no practice can reach, and the admin can compare."""

import contextlib
import re
import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import psycopg2
from sqlalchemy import Engine

from shared.logs import get_logger
from shared.shards import ShardName, new_database_name
from tenant_service import backup_file, migrating, shard_copy, shard_database, shard_migration, templates
from tenant_service.backing_up import ENDING
from tenant_service.backup_file import BackupUnreadableError, Opened
from tenant_service.backup_keys import BackupKeys
from tenant_service.copy_keeping import drop_copy
from tenant_service.exceptions import DeedRefusedError, ShardServerUnavailableError
from tenant_service.jobs import Progress
from tenant_service.server_admin import AdminSession
from tenant_service.servers import ServerRegistry
from tenant_service.storage import backups, copies, directory
from tenant_service.storage.copies import Copy, CopyOrigin, CopyState
from tenant_service.storage.directory import ShardState
from tenant_service.storage.ledger import MigrationState

KIND = "restore-backup"
_FILE_NAME = re.compile(rf"([0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}})-\d{{8}}T\d+Z{re.escape(ENDING)}")
_log = get_logger()


class Restoring:
    """The deed of the jobs of this kind. Blocking; safe to share among threads and replicas."""

    def __init__(self, engine: Engine, servers: ServerRegistry, keys: BackupKeys, *, kept_for: timedelta) -> None:
        """`kept_for`: how long the restored copy is kept."""
        self._engine = engine
        self._servers = servers
        self._keys = keys
        self._kept_for = kept_for

    def run(self, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """Restores the file; begins anew what was interrupted. Raises DeedRefusedError."""
        path = Path(arguments["path"])
        try:
            with path.open("rb") as file:
                practice_id = self._owner(path, file)
                place, rows = self._restore(file, practice_id, progress)
        except OSError as fault:
            raise DeedRefusedError(f"{path} can't be read: {fault.strerror or fault}.") from fault
        except (psycopg2.Error, ShardServerUnavailableError) as fault:
            told = shard_migration.explain(fault) if isinstance(fault, psycopg2.Error) else str(fault)
            raise DeedRefusedError(f"The practice's server refused: {told}") from fault
        _log.info("backup_restored", practice_id=str(practice_id), shard=str(place), rows=rows)
        return {"practice": str(practice_id), "database": place.database, "rows": rows}

    def _owner(self, path: Path, file: IO[bytes]) -> uuid.UUID:
        """By the file's content; by its name where the directory doesn't know it (any more)."""
        with self._engine.begin() as connection:
            found = backups.owner_of_file(connection, backup_file.sha256_of(file))
        named = _FILE_NAME.fullmatch(path.name)
        if found is None and named is None:
            raise DeedRefusedError("Nobody knows whose backup this is: give it the name that it was written under.")
        return found or uuid.UUID(named[1] if named else "")

    def _restore(self, file: IO[bytes], practice_id: uuid.UUID, progress: Progress) -> tuple[ShardName, int]:
        identity = self._keys.identity(practice_id)
        with self._engine.begin() as connection:
            former = copies.made_by(connection, progress.job_id)
        if former is not None:
            drop_copy(self._engine, self._servers, former)
        with self._engine.begin() as connection:
            # whoever erases the practice meanwhile either finds this copy, or comes first and leaves no shard
            shard = directory.find_shard(connection, practice_id, kept=True)
            if shard is None or shard.state is not ShardState.READY:
                raise DeedRefusedError("The practice has no shard beside which it could be restored.")
            copy = Copy(practice_id, shard.name.server, new_database_name(), CopyOrigin.RESTORED, CopyState.MAKING)
            copies.insert_copy(connection, copy, kept_for=self._kept_for, job_id=progress.job_id)
        place = copy.name
        try:
            with self._servers.admin(place.server).locked(place.database) as session:
                with backup_file.opened(file, identity) as backup:
                    rows = self._fill(session, place, practice_id, backup)
                shard_copy.analyze(session.access, place.database)
        except BaseException:
            with contextlib.suppress(psycopg2.Error, ShardServerUnavailableError):
                drop_copy(self._engine, self._servers, copy)
            raise
        with self._engine.begin() as connection:
            copies.mark_ready(connection, place)
        progress.note(1, 1)
        return place, rows

    def _fill(self, session: AdminSession, place: ShardName, practice_id: uuid.UUID, backup: Opened) -> int:
        revision = backup.about.get("revision")
        if backup.about.get("practice") != str(practice_id):
            raise BackupUnreadableError("The file is another practice's.")
        if revision not in migrating.shard_revisions():
            raise DeedRefusedError(f"This release does not know revision {revision}, which the backup is of.")
        self._make(session, place, practice_id, revision)
        with contextlib.closing(shard_copy.connect(session.access, place.database)) as target:
            manifest = backup.load(target)
            if shard_copy.digests(target) != manifest.digests:
                raise BackupUnreadableError("What was restored is not what was backed up.")
            target.commit()
        outcome = shard_migration.migrate(session.access, place.database)
        if outcome.state is not MigrationState.DONE:
            raise DeedRefusedError(f"The restored database can't be migrated: {outcome.error}")
        return manifest.rows

    def _make(self, session: AdminSession, place: ShardName, practice_id: uuid.UUID, revision: str) -> None:
        with self._engine.begin() as connection:
            fleet_id = directory.fleet_id(connection)
        if revision == migrating.head(migrating.SHARD):
            shard_database.clone(session, place.database, template=templates.template_name())
        else:
            templates.make_database(session, place.database, revision=revision)
        shard_database.open_as_copy(session, place.database, practice_id=practice_id, fleet_id=fleet_id)
