"""A practice's shard into a file: consistent, while everybody works."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import psycopg2
from sqlalchemy import Engine

from shared.ids import new_id
from shared.logs import get_logger
from tenant_service import backup_file, shard_copy, shard_migration
from tenant_service.backup_keys import BackupKeys
from tenant_service.exceptions import DeedRefusedError, ShardServerUnavailableError
from tenant_service.jobs import Progress
from tenant_service.servers import ServerRegistry
from tenant_service.storage import backups, directory
from tenant_service.storage.backups import Backup
from tenant_service.storage.directory import Shard, ShardState

KIND = "backup-practice"
ENDING = ".tar.gz.age"
_PARTIAL = ".partial"
_DAY_S = 86_400
_log = get_logger()


class BackingUp:
    """The deed of the jobs of this kind. Blocking; safe to share among threads and replicas."""

    def __init__(self, engine: Engine, servers: ServerRegistry, keys: BackupKeys) -> None:
        self._engine = engine
        self._servers = servers
        self._keys = keys

    def run(self, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """The job: see `take`."""
        backup = self.take(uuid.UUID(arguments["practice_id"]), Path(arguments["to"]))
        progress.note(1, 1)
        return {
            "practice": str(backup.practice_id),
            "path": backup.path,
            "sha256": backup.sha256,
            "taken_at": backup.taken_at.isoformat().replace("+00:00", "Z"),
            "rows": backup.rows,
        }

    def take(self, practice_id: uuid.UUID, folder: Path, *, is_scheduled: bool = False) -> Backup:
        """Writes the file, which has its name only once it is whole. Raises DeedRefusedError."""
        with self._engine.begin() as connection:
            shard = directory.find_shard(connection, practice_id)
        if shard is None or shard.state is not ShardState.READY:
            raise DeedRefusedError("The practice has no shard that could be backed up.")
        taken_at = datetime.now(UTC)
        path = folder / f"{practice_id}-{taken_at:%Y%m%dT%H%M%S%f}Z{ENDING}"
        _remove_remains(folder, practice_id)
        try:
            with new_file(path) as file:
                backup = self._write(file, shard, path, taken_at, is_scheduled=is_scheduled)
        except OSError as fault:
            raise DeedRefusedError(f"{folder} can't be written to: {fault.strerror or fault}.") from fault
        except (psycopg2.Error, ShardServerUnavailableError) as fault:
            told = shard_migration.explain(fault) if isinstance(fault, psycopg2.Error) else str(fault)
            raise DeedRefusedError(f"The practice's shard can't be read now: {told}") from fault
        with self._engine.begin() as connection:
            backups.insert_backup(connection, backup)
        _log.info("practice_backed_up", practice_id=str(practice_id), rows=backup.rows, bytes=backup.bytes)
        return backup

    def _write(self, file: IO[bytes], shard: Shard, path: Path, taken_at: datetime, *, is_scheduled: bool) -> Backup:
        access = self._servers.admin(shard.name.server).access
        recipient = self._keys.recipient(shard.practice_id)
        hashed = backup_file.Hashed(file)
        with contextlib.closing(shard_copy.connect(access, shard.name.database)) as session:
            shard_copy.begin_snapshot(session)
            revision = shard_migration.revision_in(session)
            about = {
                "practice": str(shard.practice_id),
                "database": shard.name.database,
                "revision": revision,
                "taken_at": taken_at.isoformat(),
            }
            if revision is None:
                raise DeedRefusedError(shard_migration.NO_STAMP)
            manifest = backup_file.write(hashed, session, about, recipient)
        facts = (hashed.sha256, hashed.count, manifest.rows, revision)
        return Backup(new_id(), shard.practice_id, str(path), *facts, is_scheduled, taken_at)


def _remove_remains(folder: Path, practice_id: uuid.UUID) -> None:
    """What killed processes left half-written: nobody writes for a day."""
    with contextlib.suppress(OSError):
        for partial in folder.glob(f".{practice_id}-*{_PARTIAL}"):
            if partial.stat().st_mtime < time.time() - _DAY_S:
                partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """For its owner alone; it appears under its name once it is whole and on the disk. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{_PARTIAL}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    parent = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
