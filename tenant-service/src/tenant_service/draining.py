"""All practices of a drained server to others, one after the other, each to where most room is."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine

from shared.logs import get_logger
from tenant_service.exceptions import DeedRefusedError, NoServerAvailableError
from tenant_service.jobs import Progress
from tenant_service.moving import ROLLED_BACK, Moving, Outcome
from tenant_service.placement import choose_server
from tenant_service.servers import ServerRegistry
from tenant_service.storage import directory, moves, registry
from tenant_service.storage.directory import Shard

KIND = "evacuate-server"
_log = get_logger()


class Draining:
    """The deed of the jobs of this kind. Done twice it finds nothing to do."""

    def __init__(self, engine: Engine, servers: ServerRegistry, moving: Moving) -> None:
        self._engine = engine
        self._servers = servers
        self._moving = moving

    def run(self, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """Moves each; one that can't be moved stays, and the others go on."""
        key = str(arguments["server"])
        with self._engine.begin() as connection:
            shards = directory.shards_on(connection, key)
            gone = moves.switched_from(connection, key)
        for practice_id in gone:  # the last one's former place may be left as it was by a process that was killed
            self._moving.clear_up(practice_id)
        moved = []
        for count, shard in enumerate(shards, start=1):
            to, outcome = self._move(shard, progress)
            moved.append({"practice": str(shard.practice_id), "from": key, "to": to, **outcome._asdict()})
            progress.note(count, len(shards))
        _log.info("server_evacuated", server=key, practices=len(moved))
        return {"server": key, "moves": moved}

    def _move(self, shard: Shard, progress: Progress) -> tuple[str | None, Outcome]:
        to = None
        try:
            with self._engine.begin() as connection:
                others = [one for one in registry.list_servers(connection) if one.key != shard.name.server]
            to = choose_server(others, usable=self._servers.usable).key
            return to, self._moving.move(shard.practice_id, to, _WithinDrain(progress))
        except (DeedRefusedError, NoServerAvailableError) as fault:
            return to, Outcome(0, 0, ROLLED_BACK, str(fault))


class _WithinDrain(Progress):
    """A single move's steps aren't the drain's: they only tell whether to stop."""

    def __init__(self, whole: Progress) -> None:
        self._whole = whole

    def note(self, done: int, total: int) -> None:  # noqa: ARG002 - see above
        self._whole.keep_going()
