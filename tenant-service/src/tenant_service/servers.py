"""The shard servers this process knows: where they are, who their admin is, and whether they can take a practice."""

import psycopg2
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFreeError

from shared.logs import describe_fault, get_logger
from shared.shards import FLEET_STAMP, PRACTICE_STAMP
from tenant_service import templates
from tenant_service.config import Settings
from tenant_service.exceptions import ShardServerUnavailableError, TemplateDriftedError
from tenant_service.server_admin import Access, AdminSession, ServerAdmin
from tenant_service.storage import registry

FAULTS = (psycopg2.Error, DBAPIError, NoConnectionFreeError)
"""What a server that is down, full or misconfigured raises."""
_NOT_CHECKED = "not checked yet"
_log = get_logger()


class ServerRegistry:
    """Servers by key. `refresh` runs in the background; everything else answers from what it found."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._admins: dict[str, ServerAdmin] = {}
        self._servers: list[registry.Server] = []
        self._faults: dict[str, str | None] = {}

    def refresh(self) -> bool:
        """Registers the environment's servers, checks all, makes missing templates; tells whether all can be used.

        Raises OperationalError when the central database can't be reached.
        """
        settings = self._settings
        with self._engine.begin() as connection:
            for address in settings.servers:
                registry.upsert_server(
                    connection,
                    address.key,
                    host=address.host,
                    port=address.port,
                    sslmode=settings.db_sslmode,
                    sslrootcert=settings.db_sslrootcert,
                )
            known = registry.list_servers(connection)
        for server in known:
            self._connect(server)
        self._servers = known
        for server in known:
            self._note(server.key, self._check(self._admins[server.key], server.key))
        return all(self._faults[server.key] is None for server in known)

    def _connect(self, server: registry.Server) -> None:
        """Makes the server's admin, or another when it is reached in another way now."""
        credentials = self._settings.admin_of(server.key)
        access = Access(server.host, server.port, *credentials, server.sslmode, server.sslrootcert)
        former = self._admins.get(server.key)
        if former is None or former.access != access:
            self._admins[server.key] = ServerAdmin(access)
            if former is not None:
                former.close()

    def _check(self, admin: ServerAdmin, key: str) -> str | None:
        """What is wrong with a server; None when a practice can be put there."""
        try:
            with admin.session() as session:
                missing = missing_rights(session)
                ((max_connections,),) = session.rows("SELECT current_setting('max_connections')::int")
            if missing:
                return f"its admin role lacks {', '.join(missing)}"
            templates.ensure_template(admin)
        except FAULTS as fault:
            _log.warning("shard_server_check_failed", server=key, **describe_fault(fault))
            return "not reachable" if isinstance(getattr(fault, "orig", fault), psycopg2.OperationalError) else "faulty"
        except TemplateDriftedError as fault:
            _log.error("template_drifted", server=key, differences=str(fault))
            return "its template is not what the migrations should lead to"
        with self._engine.begin() as connection:
            registry.note_max_connections(connection, key, max_connections)
        return None

    def _note(self, key: str, fault: str | None) -> None:
        if self._faults.get(key, _NOT_CHECKED) != fault:
            _log.info("shard_server_state", server=key, fault=fault)
        self._faults[key] = fault

    def admin(self, key: str) -> ServerAdmin:
        """A server's admin. Raises ShardServerUnavailableError for a key that isn't known (yet)."""
        try:
            return self._admins[key]
        except KeyError:
            raise ShardServerUnavailableError(f"Server {key} is not known here.", retry_after_s=5) from None

    @property
    def usable(self) -> set[str]:
        """Servers that had no fault at the last check."""
        return {key for key, fault in self._faults.items() if fault is None}

    def missing(self) -> dict[str, str]:
        """Empty when an open server answers now and has its template; else each server's fault."""
        found: dict[str, str] = {}
        for server in self._servers:
            name = f"shard server {server.key}"
            fault = self._faults.get(server.key, _NOT_CHECKED)
            if server.state is not registry.ServerState.OPEN:
                fault = f"is {server.state}"
            if fault is None and _answers(self._admins[server.key]):
                return {}
            found[name] = fault or "not reachable"
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
        for admin in self._admins.values():
            admin.close()


def _answers(admin: ServerAdmin) -> bool:
    try:
        return templates.is_ready(admin)
    except FAULTS:
        return False


def missing_rights(session: AdminSession) -> list[str]:
    """What `prepare-server` would give to the admin role and it doesn't have. Raises what FAULTS lists."""
    ((createdb, createrole, group, signal, stamps),) = session.rows(
        "SELECT rolcreatedb OR rolsuper, rolcreaterole OR rolsuper,"
        " (SELECT pg_has_role(oid, 'MEMBER WITH ADMIN OPTION') FROM pg_roles WHERE rolname = %(group)s),"
        " pg_has_role('pg_signal_backend', 'USAGE'),"
        " has_parameter_privilege(%(practice)s, 'SET') AND has_parameter_privilege(%(fleet)s, 'SET')"
        " FROM pg_roles WHERE rolname = current_user",
        {"group": templates.SHARD_GROUP, "practice": PRACTICE_STAMP, "fleet": FLEET_STAMP},
    )
    rights = {
        "CREATEDB": createdb,
        "CREATEROLE": createrole,
        f"the admin option of {templates.SHARD_GROUP}": group,
        "pg_signal_backend": signal,
        "SET on the stamps": stamps,
    }
    return [name for name, present in rights.items() if not present]
