"""The shard servers this process knows: where they are, who their admin is, and whether they can take a practice."""

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg2
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFreeError

from shared.logs import describe_fault, get_logger
from shared.settings import UnreadableSecretError
from tenant_service import server_check, templates
from tenant_service.config import Settings
from tenant_service.exceptions import ShardServerUnavailableError, TemplateDriftedError
from tenant_service.server_admin import Access, ServerAdmin
from tenant_service.storage import registry

FAULTS = (psycopg2.Error, DBAPIError, NoConnectionFreeError)
"""What a server that is down, full or misconfigured raises."""
_NOT_CHECKED = "not checked yet"
_log = get_logger()


@dataclass
class _Known:
    """A server as this process sees it. Without readable credentials it has no admin."""

    server: registry.Server
    admin: ServerAdmin | None = None
    fault: str | None = _NOT_CHECKED
    doors_checked: bool = False


class ServerRegistry:
    """Servers by key. `refresh` runs in the background; everything else answers from what it found."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._known: dict[str, _Known] = {}

    def refresh(self) -> bool:
        """Registers the environment's servers, checks all, makes missing templates; tells whether all can be used.

        Raises OperationalError when the central database can't be reached.
        """
        before = set(self._known)
        with self._engine.begin() as connection:
            servers = registry.list_servers(connection)
            if self._register(connection, servers):
                servers = registry.list_servers(connection)
        for key in before - {server.key for server in servers}:
            self.forget(key)
        known = [self._connect(server) for server in servers]
        for one in known:
            self._judge(one)
        return all(one.fault is None for one in known)

    def _register(self, connection: Connection, servers: Sequence[registry.Server]) -> bool:
        """Writes down the environment's servers where they aren't yet as it says; whether there were such."""
        settings, known = self._settings, {server.key: server for server in servers}
        tls = {"sslmode": settings.db_sslmode, "sslrootcert": settings.db_sslrootcert}
        changed = False
        for key, host, port in settings.servers:
            where = {"host": host, "port": port, **tls}
            if key not in known or any(getattr(known[key], name) != value for name, value in where.items()):
                registry.save_server(connection, key, **where)
                changed = True
        return changed

    def take(self, server: registry.Server) -> None:
        """Knows a server from now on as it is described, and checks it."""
        self._judge(self._connect(server))

    def _connect(self, server: registry.Server) -> _Known:
        """Makes the server's admin, or another when it is reached in another way now."""
        known = self._known.setdefault(server.key, _Known(server))
        known.server = server
        try:
            access = self.access(server)
        except UnreadableSecretError as fault:
            self._note(known, str(fault))
            self._replace_admin(known, None)
            return known
        if known.admin is None or known.admin.access != access:
            self._replace_admin(known, ServerAdmin(access))
        return known

    def access(self, server: registry.Server) -> Access:
        """How the server's admin enters it, by the credentials as they are now. Raises UnreadableSecretError."""
        credentials = self._settings.admin_of(server.key)
        return Access(server.host, server.port, *credentials, server.sslmode, server.sslrootcert)

    def _replace_admin(self, known: _Known, admin: ServerAdmin | None) -> None:
        former, known.admin, known.doors_checked = known.admin, admin, False
        if former is not None:
            former.close()

    def describe(self, server: registry.Server) -> None:
        """Takes over what was changed of a server that needs no new check."""
        if server.key in self._known:
            self._known[server.key].server = server

    def forget(self, key: str) -> None:
        """The server was removed."""
        known = self._known.pop(key, None)
        if known is not None:
            self._replace_admin(known, None)
            _log.info("shard_server_forgotten", server=key)

    def _judge(self, known: _Known) -> None:
        if known.admin is not None:
            self._note(known, self._check(known, known.admin))

    def _check(self, known: _Known, admin: ServerAdmin) -> str | None:
        """What is wrong with a server; None when a practice can be put there."""
        key = known.server.key
        try:
            if not known.doors_checked:  # each time would fill the server's log
                faults = server_check.door_faults(admin.access)
                known.doors_checked = not faults
            else:
                faults = []
            with admin.session() as session:
                faults += server_check.version_faults(session) or server_check.rights_faults(session)
                allowed = server_check.max_connections(session)
            if not faults:
                faults = server_check.template_faults(admin)
        except FAULTS as fault:
            _log.warning("shard_server_check_failed", server=key, **describe_fault(fault))
            return "not reachable" if isinstance(getattr(fault, "orig", fault), psycopg2.OperationalError) else "faulty"
        except TemplateDriftedError as fault:
            _log.error("template_drifted", server=key, differences=str(fault))
            return "its template is not what the migrations should lead to"
        with self._engine.begin() as connection:
            registry.note_max_connections(connection, key, allowed)
        return "; ".join(fault.message for fault in faults) or None

    def _note(self, known: _Known, fault: str | None) -> None:
        if known.fault != fault:
            _log.info("shard_server_state", server=known.server.key, fault=fault)
        known.fault = fault

    def doubt(self, key: str, fault: Exception) -> None:
        """A deed failed there. If the server is gone, no practice is put there until a check has succeeded again."""
        cause = getattr(fault, "orig", fault)
        state = getattr(cause, "pgcode", None)  # none: no connection, or it was lost in the middle of a statement
        is_lost = isinstance(cause, psycopg2.OperationalError) and (state is None or state.startswith(("08", "57P")))
        known = self._known.get(key)
        # a lost connection may be all that was lost: who is asked once more and answers goes on at once
        if is_lost and known and known.admin and not _answers(known.admin):
            self._note(known, "not reachable")

    def admin(self, key: str) -> ServerAdmin:
        """A server's admin. Raises ShardServerUnavailableError for a key that isn't known (yet)."""
        known = self._known.get(key)
        if known is None or known.admin is None:
            raise ShardServerUnavailableError(f"Server {key} is not known here.", retry_after_s=5)
        return known.admin

    @property
    def usable(self) -> set[str]:
        """Servers that had no fault at the last check."""
        return {key for key, known in tuple(self._known.items()) if known.fault is None}

    def missing(self) -> dict[str, str]:
        """Empty when an open server answers now and has its template; else each server's fault."""
        found: dict[str, str] = {}
        for key, known in tuple(self._known.items()):
            fault = known.fault
            if known.server.state is not registry.ServerState.OPEN:
                fault = f"is {known.server.state}"
            if fault is None and known.admin is not None and _answers(known.admin):
                return {}
            found[f"shard server {key}"] = fault or "not reachable"
        return found or {"shard servers": _NOT_CHECKED}

    def connections(self, key: str) -> int | None:
        """Client connections of a server; None when it doesn't answer."""
        if key not in self.usable:
            return None
        try:
            with self.admin(key).session() as session:
                ((count,),) = session.rows(
                    "SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend'"
                )
        except FAULTS:
            return None
        return int(count)

    def close(self) -> None:
        """Closes idle connections."""
        for known in self._known.values():
            if known.admin is not None:
                known.admin.close()


def _answers(admin: ServerAdmin) -> bool:
    try:
        return templates.is_ready(admin)
    except FAULTS:
        return False
