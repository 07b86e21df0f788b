"""One practice to another server, while it works: bulk copy, catching up, proof, fence, the rest and its proof, switch.

The switch is one transaction of the directory. Whatever fails or dies before it leaves the practice where it was;
whatever dies after it is only cleared up. The former place is kept for a time, as a copy.
"""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import psycopg2
from sqlalchemy import Engine

from shared.logs import describe_fault, get_logger
from shared.shards import ShardName
from tenant_service import migrating, shard_copy, shard_database, shard_migration, templates
from tenant_service.exceptions import (
    DeedPostponedError,
    DeedRefusedError,
    FenceLeakyError,
    MoveRefusedError,
    ServerUnknownError,
    ShardServerUnavailableError,
)
from tenant_service.jobs import Progress
from tenant_service.provisioning import Provisioning
from tenant_service.server_admin import AdminSession
from tenant_service.servers import FAULTS, ServerRegistry
from tenant_service.shard_copy import DifferentRowsError, Session
from tenant_service.storage import copies, directory, moves, registry
from tenant_service.storage.copies import Copy, CopyOrigin, CopyState
from tenant_service.storage.directory import Fence, Shard
from tenant_service.storage.moves import Move, MovePhase
from tenant_service.storage.registry import Server, ServerState

KIND = "move-practice"
STEPS = 5
"""Copied, caught up, proved, and so on."""
MOVED, ROLLED_BACK = "moved", "rolled-back"
FEW_ROWS = 500
"""So few changed rows follow behind the fence."""
MOST_ROUNDS = 8
_FAULTS = (*FAULTS, ShardServerUnavailableError, FenceLeakyError)
_Seen = TypeVar("_Seen")
_log = get_logger()


class Outcome(NamedTuple):
    """How a move ended."""

    rows: int
    fence_ms: int
    result: str
    reason: str | None = None


class Moving:
    """The deed of the jobs of this kind. Blocking; safe to share among threads and replicas."""

    def __init__(self, engine: Engine, servers: ServerRegistry, *, shard_key: bytes, kept_for: timedelta) -> None:
        """`kept_for`: how long the former place is kept."""
        self._engine = engine
        self._servers = servers
        self._shard_key = shard_key
        self._kept_for = kept_for

    def check(self, provisioning: Provisioning, practice_id: uuid.UUID, to: str) -> None:
        """Whether a move may begin. Raises ShardUnknownError, ServerUnknownError, MoveRefusedError and the like."""
        shard = provisioning.find(practice_id)
        with self._engine.begin() as connection:
            known = {server.key: server for server in registry.list_servers(connection)}
        if to not in known:
            raise ServerUnknownError
        if reason := self._obstacle(shard, known[to]):
            raise MoveRefusedError(reason)

    def run(self, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """The job: see `move`."""
        practice_id, to = uuid.UUID(arguments["practice_id"]), str(arguments["to"])
        with self._engine.begin() as connection:
            shard = directory.find_shard(connection, practice_id)
            last = moves.find_move(connection, practice_id)
        if shard is None:
            raise DeedRefusedError("The practice has no shard.")
        is_resumed = last is not None and last.phase is not MovePhase.ROLLED_BACK and last.to_server == to
        origin = last.from_server if last and is_resumed else shard.name.server
        outcome = self.move(practice_id, to, progress)
        return {"practice": str(practice_id), "from": origin, "to": to, **outcome._asdict()}

    def move(self, practice_id: uuid.UUID, to: str, progress: Progress) -> Outcome:
        """Moves it; goes on where an interrupted move stopped.

        Raises DeedRefusedError before anything was changed, StoppingError, and DeedPostponedError when not even the
        roll-back is possible now: the next attempt begins with it.
        """
        shard = self.clear_up(practice_id)
        if shard.name.server == to:
            return self._finished(practice_id, to)
        with self._engine.begin() as connection:
            known = {server.key: server for server in registry.list_servers(connection)}
        if to not in known:
            raise DeedRefusedError(f"There is no server {to}.")
        if to not in self._servers.usable:
            self._servers.refresh()  # it may be back by now
        if obstacle := self._obstacle(shard, known[to]):
            raise DeedRefusedError(obstacle)
        database, source = shard.name.database, shard.name.server
        began = Move(practice_id, database, source, to, MovePhase.COPYING)
        try:
            with self._both_locked(source, to, database) as (here, there):
                self._make_room(there, began)
                with self._engine.begin() as connection:
                    moves.begin_move(connection, began)
                outcome = self._carry(here, there, began, progress)
                self._leave_copy(here, began)
        except (*_FAULTS, DifferentRowsError, DeedRefusedError) as fault:
            reason = shard_migration.explain(fault) if isinstance(fault, FAULTS) else str(fault) or type(fault).__name__
            _log.warning("move_failed", practice_id=str(practice_id), to=to, **describe_fault(fault))
            if self.clear_up(practice_id, reason=reason).name.server == to:
                return self._finished(practice_id, to)
            return Outcome(0, 0, ROLLED_BACK, reason)
        except BaseException:  # the process ends, or something that nobody foresaw: the practice works on in any case
            self.clear_up(practice_id, reason="It was broken off.")
            raise
        _log.info("practice_moved", practice_id=str(practice_id), origin=source, to=to, fence_ms=outcome.fence_ms)
        return outcome

    def _obstacle(self, shard: Shard, server: Server) -> str | None:
        """Why the shard can't go there now."""
        to, head = server.key, migrating.head(migrating.SHARD)
        if shard.name.server == to:
            return f"The practice is on server {to}."
        if server.state is not ServerState.OPEN:
            return f"Server {to} is {server.state}."
        if to not in self._servers.usable:
            return f"Server {to} can't be used right now."
        if shard.fence is not None and shard.fence != Fence.MOVING:
            return f"The practice's database is fenced: {shard.fence}."
        if shard.revision is not None and shard.revision != head:
            return f"The practice's database is at revision {shard.revision}: migrate it to {head} first."
        return None

    @contextlib.contextmanager
    def _both_locked(self, source: str, to: str, database: str) -> Iterator[tuple[AdminSession, AdminSession]]:
        """Nobody else makes, migrates or drops the shard meanwhile, here or there."""
        with (
            self._servers.admin(source).locked(database) as here,
            self._servers.admin(to).locked(database) as there,
        ):
            yield here, there

    def _make_room(self, there: AdminSession, move: Move) -> None:
        """A copy that an earlier move left there goes; anything else of this name is in the way."""
        found = shard_database.find(there, move.database)
        if found is None:
            return
        with self._engine.begin() as connection:
            fleet_id = directory.fleet_id(connection)
        if found.fleet_stamp != str(fleet_id) or not shard_database.is_copy_of(found, move.practice_id):
            raise DeedRefusedError(f"Server {move.to_server} has another database of the name {move.database}.")
        self._drop(there, move.to_server, move.database)

    def _carry(self, here: AdminSession, there: AdminSession, move: Move, progress: Progress) -> Outcome:
        database = move.database
        with self._engine.begin() as connection:
            fleet_id = directory.fleet_id(connection)
        shard_database.clone(there, database, template=templates.template_name())
        shard_database.open_as_copy(there, database, practice_id=move.practice_id, fleet_id=fleet_id)
        with contextlib.ExitStack() as sessions:
            source = sessions.enter_context(contextlib.closing(shard_copy.connect(here.access, database)))
            target = sessions.enter_context(contextlib.closing(shard_copy.connect(there.access, database)))
            if shard_migration.revision_in(source) != migrating.head(migrating.SHARD):
                raise DeedRefusedError("The practice's database is not at the newest revision: migrate it first.")
            horizon = shard_copy.begin_snapshot(source)
            shard_copy.copy_all(source, target)
            progress.note(1, STEPS)
            for _ in range(MOST_ROUNDS):
                former, horizon = horizon, shard_copy.begin_snapshot(source)
                if shard_copy.copy_younger(source, target, former) <= FEW_ROWS:
                    break
            progress.note(2, STEPS)
            _prove_equal(shard_copy.digests, source, target)
            progress.note(3, STEPS)
            # what was proved stays so: behind the fence follow the rows that were written since that snapshot
            began = time.monotonic()
            self._fence(here, move)
            shard_copy.begin_snapshot(source)
            shard_copy.copy_younger(source, target, horizon, proved=True)
            rows = sum(_prove_equal(shard_copy.counts, source, target).values())
            if not shard_database.is_quiet(here, database):
                raise FenceLeakyError("Somebody connected through the fence.")
        shard_database.open_to_its_role(
            there, database, practice_id=move.practice_id, fleet_id=fleet_id, key=self._shard_key
        )
        return self._switch(move, rows=rows, began=began)

    def _fence(self, here: AdminSession, move: Move) -> None:
        with self._engine.begin() as connection:
            moves.note_phase(connection, move.practice_id, MovePhase.FENCED)
            directory.set_fence(connection, move.practice_id, Fence.MOVING)
        shard_database.fence(here, move.database)

    def _switch(self, move: Move, *, rows: int, began: float) -> Outcome:
        former = Copy(move.practice_id, move.from_server, move.database, CopyOrigin.MOVED, CopyState.READY)
        with self._engine.begin() as connection:
            copies.insert_copy(connection, former, kept_for=self._kept_for)
            head = migrating.head(migrating.SHARD)
            fence_ms = round((time.monotonic() - began) * 1000)
            moves.note_phase(connection, move.practice_id, MovePhase.SWITCHED, rows=rows, fence_ms=fence_ms)
            directory.move_shard(connection, move.practice_id, to=move.to_server, revision=head)
        return Outcome(rows, fence_ms, MOVED)

    def _leave_copy(self, here: AdminSession, move: Move) -> None:
        """The former place bears another stamp from now on, and its role is shut out."""
        with self._engine.begin() as connection:
            fleet_id = directory.fleet_id(connection)
        shard_database.open_as_copy(here, move.database, practice_id=move.practice_id, fleet_id=fleet_id)

    def clear_up(self, practice_id: uuid.UUID, *, reason: str | None = None) -> Shard:
        """Undoes or ends what the practice's last move left; the shard as it is then.

        Raises DeedPostponedError while a shard server is away.
        """
        try:
            return self._clear_up(practice_id, reason=reason)
        except (psycopg2.Error, ShardServerUnavailableError) as fault:
            raise DeedPostponedError from fault

    def _clear_up(self, practice_id: uuid.UUID, *, reason: str | None = None) -> Shard:
        """Undoes what a move left that never switched, ends what was left of one that did. The shard as it is then."""
        with self._engine.begin() as connection:
            move = moves.find_move(connection, practice_id)
            shard = directory.find_shard(connection, practice_id)
        if shard is None:
            raise DeedRefusedError("The practice has no shard.")
        if move is None or move.phase is MovePhase.ROLLED_BACK:
            return shard
        if move.phase is MovePhase.SWITCHED:
            self._end_former_place(move)
            return shard
        with self._servers.admin(move.from_server).locked(move.database) as here:
            found = shard_database.find(here, move.database)
            if found is None or found.practice_id != practice_id:
                # a directory restored to an older state tells of a move that has switched since
                raise DeedRefusedError(f"Server {move.from_server} no longer has the practice's shard: look at both.")
            shard_database.lift_fence(here, move.database)
        with self._engine.begin() as connection:
            directory.lift_fence(connection, practice_id, Fence.MOVING.family)
        with self._servers.admin(move.to_server).locked(move.database) as there:
            self._drop(there, move.to_server, move.database)
        with self._engine.begin() as connection:
            moves.note_phase(connection, practice_id, MovePhase.ROLLED_BACK, error=reason)
        _log.info("move_rolled_back", practice_id=str(practice_id), to=move.to_server)
        return shard._replace(fence=None) if shard.fence == Fence.MOVING else shard

    def _end_former_place(self, move: Move) -> None:
        """Unless the practice, or another copy, is there by now."""
        with self._servers.admin(move.from_server).locked(move.database) as here:
            found = shard_database.find(here, move.database)
            with self._engine.begin() as connection:
                shard = directory.find_shard(connection, move.practice_id)
            if found and shard and shard.name.server != move.from_server and found.practice_id == move.practice_id:
                self._leave_copy(here, move)

    def _drop(self, there: AdminSession, server: str, database: str) -> None:
        shard_database.drop(there, database)
        with self._engine.begin() as connection:
            copies.delete_copy(connection, ShardName(server, database))

    def _finished(self, practice_id: uuid.UUID, to: str) -> Outcome:
        with self._engine.begin() as connection:
            move = moves.find_move(connection, practice_id)
        if move is None or move.phase is not MovePhase.SWITCHED or move.to_server != to:
            raise DeedRefusedError(f"The practice is on server {to}.")
        return Outcome(move.rows or 0, move.fence_ms or 0, MOVED)


def _prove_equal(look: Callable[[Session], dict[str, _Seen]], source: Session, target: Session) -> dict[str, _Seen]:
    """The same look at both servers at once; what both show. Raises DifferentRowsError."""
    with ThreadPoolExecutor(1) as other:
        there = other.submit(look, target)
        here = look(source)
    if here != there.result():
        raise DifferentRowsError
    return here
