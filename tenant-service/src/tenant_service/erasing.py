"""The end of a closed practice's data: shard, role, copies, backups, and the key without which none can be read.

The directory's row goes last, so that whatever was interrupted is found and done again.
"""

import uuid
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from shared.logs import get_logger
from tenant_service import shard_database
from tenant_service.copy_keeping import drop_copy
from tenant_service.exceptions import ErasureUnfinishedError, ShardStampedOtherwiseError
from tenant_service.recording import Operation, note
from tenant_service.servers import ServerRegistry
from tenant_service.storage import backups, copies, directory
from tenant_service.storage.directory import Shard

RETRY_AFTER_S = 5
_log = get_logger()


class Erasing:
    """Blocking; safe to share among threads and replicas; may be repeated."""

    def __init__(self, engine: Engine, servers: ServerRegistry) -> None:
        self._engine = engine
        self._servers = servers

    def erase(self, practice_id: uuid.UUID) -> dict[str, Any]:
        """Destroys all of it and tells what: `{database, backup_files}`; empty values for what was gone before.

        Raises ShardStampedOtherwiseError when the database in the directory is not the practice's,
        ErasureUnfinishedError when a copy was made meanwhile, and what servers.FAULTS lists.
        """
        with self._engine.begin() as connection:
            shard = directory.find_shard(connection, practice_id)
            others = copies.copies_of(connection, practice_id)
            files = backups.backups_of(connection, practice_id)
            backups.delete_key(connection, practice_id)
        for copy in others:
            drop_copy(self._engine, self._servers, copy)
        for file in files:
            Path(file.path).unlink(missing_ok=True)
        if shard is not None and shard.database is not None:
            self._drop(shard)
        facts = {"database": shard.database if shard else None, "backup_files": len(files)}
        with self._engine.begin() as connection:
            if shard is None or shard.database is not None:
                directory.erase_shard(connection, practice_id)
                note(connection, Operation.PRACTICE_ERASED, practice_id=practice_id, detail=facts)
            # what a restore or a backup began meanwhile keeps the row as it was, so that all of it is done again
            if copies.copies_of(connection, practice_id):
                raise ErasureUnfinishedError(retry_after_s=RETRY_AFTER_S)
            backups.delete_key(connection, practice_id)
            late = [one for one in backups.backups_of(connection, practice_id) if one not in files]
            for file in late:
                Path(file.path).unlink(missing_ok=True)
            backups.delete_backups(connection, [file.id for file in (*files, *late)])
        _log.info("practice_erased", practice_id=str(practice_id), database=facts["database"])
        return facts

    def _drop(self, shard: Shard) -> None:
        database = shard.name.database
        with self._servers.admin(shard.name.server).locked(database) as session:
            found = shard_database.find(session, database)
            if found is not None and found.practice_id != shard.practice_id:
                raise ShardStampedOtherwiseError
            shard_database.lock_out(session, database)
            shard_database.drop(session, database)
