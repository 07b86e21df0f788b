"""The end of a copy: its database goes only if it bears a copy's stamp, whatever the directory says."""

import uuid

from sqlalchemy import Engine

from shared.logs import get_logger
from tenant_service import shard_database
from tenant_service.exceptions import CopyUnknownError
from tenant_service.recording import Operation, note
from tenant_service.servers import ServerRegistry
from tenant_service.storage import copies
from tenant_service.storage.copies import Copy, CopyState

_log = get_logger()


def drop_copy(engine: Engine, servers: ServerRegistry, copy: Copy) -> bool:
    """Drops a copy's database and forgets the copy; false when the database turned out to be none.

    Then it is forgotten too: the reconciler sees to what nobody owns. Raises what servers.FAULTS lists.
    """
    with servers.admin(copy.server).locked(copy.database) as session:
        found = shard_database.find(session, copy.database)
        is_copy = found is not None and shard_database.is_copy_of(found, copy.practice_id)
        # its name is ours and was never told to anybody
        is_unstamped = (
            found is not None
            and found.practice_stamp is None
            and (copy.state is CopyState.MAKING or not found.was_claimed)
        )
        if is_copy or is_unstamped:
            shard_database.drop(session, copy.database)
        with engine.begin() as connection:
            copies.delete_copy(connection, copy.name)
    _log.info("copy_dropped", practice_id=str(copy.practice_id), shard=str(copy.name), dropped=is_copy or is_unstamped)
    return is_copy or is_unstamped


class CopyKeeping:
    """A practice's copies, by their databases."""

    def __init__(self, engine: Engine, servers: ServerRegistry) -> None:
        self._engine = engine
        self._servers = servers

    def require(self, practice_id: uuid.UUID, database: str) -> Copy:
        """The copy. Raises CopyUnknownError."""
        with self._engine.begin() as connection:
            copy = copies.find_copy(connection, practice_id, database)
        if copy is None:
            raise CopyUnknownError
        return copy

    def drop(self, practice_id: uuid.UUID, database: str) -> None:
        """Drops it now. Raises CopyUnknownError, and what servers.FAULTS lists."""
        copy = self.require(practice_id, database)
        with self._engine.begin() as connection:  # before the deed: a database that is gone can't be noted with it
            note(connection, Operation.COPY_DROPPED, practice_id=practice_id, target=str(copy.name))
        drop_copy(self._engine, self._servers, copy)
