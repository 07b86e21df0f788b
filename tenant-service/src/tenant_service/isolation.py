"""The proof that only a practice reaches its shard, asked of PostgreSQL itself: page by page, changing nothing."""

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import Engine

from shared.cursor import encode_cursor
from shared.logs import describe_fault, get_logger
from tenant_service import isolation_facts
from tenant_service.config import Settings
from tenant_service.exceptions import ShardServerUnavailableError
from tenant_service.isolation_checks import CentralDatabase, Check, ServerFacts, check_practice, faults_of_copy
from tenant_service.listing import id_in
from tenant_service.provisioning import Provisioning
from tenant_service.server_admin import Access
from tenant_service.servers import FAULTS, ServerRegistry
from tenant_service.storage import copies, directory
from tenant_service.storage.copies import Copy
from tenant_service.storage.directory import Shard, ShardState

MOST_PRACTICES = 50
"""In a page."""
PAGE_TIME_S = 4.0
"""After this time a page ends with the practice that is looked at: the gateway's whole call has 10 s."""
_log = get_logger()


class Report(NamedTuple):
    """A practice and what was found of it."""

    practice_id: uuid.UUID
    checks: list[Check]


class IsolationPage(NamedTuple):
    """Reports in the order of practice ids, the cursor behind them if there are more, and how many there are in all."""

    reports: list[Report]
    next_cursor: str | None
    total: int


class Isolation:
    """Looks at practices' shards. Blocking; safe to share among threads."""

    def __init__(self, engine: Engine, servers: ServerRegistry, provisioning: Provisioning, settings: Settings) -> None:
        self._engine = engine
        self._servers = servers
        self._provisioning = provisioning
        self._settings = settings

    def of_practice(self, practice_id: uuid.UUID) -> Report:
        """One practice's. Raises ShardUnknownError, ShardNotReadyError or ShardQuarantinedError."""
        [report] = self._look([self._provisioning.find(practice_id)])
        return report

    def page(self, *, limit: int, cursor: str | None) -> IsolationPage:
        """Of the practices whose shards are in use: as many as the time allows, at most `limit`, at least one.

        Raises MalformedCursorError.
        """
        after = id_in(cursor) if cursor is not None else None
        with self._engine.begin() as connection:
            shards = directory.page_of_shards(connection, state=ShardState.READY, after=after, limit=limit + 1)
            total = directory.count_states(connection).get(ShardState.READY, 0)
        reports = list(self._look(shards[:limit]))
        if len(reports) == len(shards):
            return IsolationPage(reports, None, total)
        return IsolationPage(reports, encode_cursor(str(reports[-1].practice_id)), total)

    def _look(self, shards: Sequence[Shard]) -> Iterator[Report]:
        ends = time.monotonic() + PAGE_TIME_S
        with self._engine.begin() as connection:
            fleet_id = directory.fleet_id(connection)
            kept = copies.ready_copies_of(connection, [shard.practice_id for shard in shards])
        names = [*(shard.name for shard in shards), *(copy.name for copy in kept)]
        with contextlib.ExitStack() as sessions:
            servers: dict[str, ServerFacts | str] = {}
            for shard in shards:
                own = [copy for copy in kept if copy.practice_id == shard.practice_id]
                for key in {shard.name.server, *(copy.server for copy in own)} - servers.keys():
                    here = [name.database for name in names if name.server == key]
                    servers[key] = self._enter(sessions, key, here, fleet_id)
                yield Report(shard.practice_id, [*self._judge(servers, shard), _judge_copies(servers, own)])
                if time.monotonic() > ends:
                    return

    def _enter(
        self, sessions: contextlib.ExitStack, key: str, databases: Sequence[str], fleet_id: uuid.UUID
    ) -> ServerFacts | str:
        """A server and what its catalog says; or why it can't be asked."""
        settings = self._settings
        central = Access(settings.db_host, settings.db_port, "", "", settings.db_sslmode, settings.db_sslrootcert)
        try:
            admin = self._servers.admin(key)
            session = sessions.enter_context(admin.session())
            return ServerFacts(
                access=admin.access,
                session=session,
                fleet_id=fleet_id,
                central=CentralDatabase(central, settings.db_name),
                keys=settings.shard_keys,
                databases=isolation_facts.databases(session, databases, fleet_id),
                roles=isolation_facts.roles(session, databases),
            )
        except (*FAULTS, ShardServerUnavailableError) as fault:
            return _not_asked(key, fault)

    def _judge(self, servers: dict[str, ServerFacts | str], shard: Shard) -> list[Check]:
        key, database = shard.name
        server = servers[key]
        if not isinstance(server, str):
            try:
                return check_practice(server, database, shard.practice_id)
            except FAULTS as fault:  # it went away; it isn't asked for the practices after this one
                server = servers[key] = _not_asked(key, fault)
        return [Check("server", ok=False, detail=server)]


def _judge_copies(servers: dict[str, ServerFacts | str], kept: Sequence[Copy]) -> Check:
    faults = []
    for copy in kept:
        server = servers[copy.server]
        found = [server] if isinstance(server, str) else faults_of_copy(server, copy.database, copy.practice_id)
        faults += [f"{copy.database} on {copy.server}: {fault}" for fault in found]
    closed = f"{len(kept)}, open to the server's admin alone" if kept else "none"
    return Check("copies", ok=not faults, detail="; ".join(faults) or closed)


def _not_asked(key: str, fault: Exception) -> str:
    _log.warning("isolation_not_checked", server=key, **describe_fault(fault))
    return f"server {key} can't be asked: {str(getattr(fault, 'orig', fault)).strip()}"
