"""Shard servers come and go: added after a check, drained, opened again, removed. Every deed may be repeated."""

import uuid
from typing import Any

from sqlalchemy import Connection, Engine

from shared.logs import get_logger
from shared.settings import UnreadableSecretError
from tenant_service import server_check, shard_database
from tenant_service.config import Settings, safe_sslmode
from tenant_service.exceptions import (
    ServerConflictError,
    ServerUnknownError,
    ServerUnsuitableError,
    TemplateDriftedError,
)
from tenant_service.preparation import TENANT_ROLE
from tenant_service.recording import Operation, note
from tenant_service.server_admin import Access, ServerAdmin
from tenant_service.server_check import Fault
from tenant_service.servers import FAULTS, ServerRegistry
from tenant_service.storage import directory, registry
from tenant_service.storage.registry import Place, Server, ServerState

_VERIFYING = frozenset({"verify-ca", "verify-full"})
_PREPARE = "python -m tenant_service.cli prepare-server"
_log = get_logger()


class ServerRegistration:
    """What an operator may do with the list of servers. Blocking; safe to share among threads and replicas."""

    def __init__(self, engine: Engine, servers: ServerRegistry, settings: Settings) -> None:
        self._engine = engine
        self._servers = servers
        self._settings = settings

    def add(
        self,
        key: str,
        *,
        host: str,
        port: int,
        sslmode: str | None = None,
        sslrootcert: str | None = None,
        capacity: int | None = None,
    ) -> tuple[Server, bool]:
        """The server, and whether it is new. A known one may get another capacity or protection; None keeps its own.

        Raises ServerConflictError, or ServerUnsuitableError with every fault that the check found.
        """
        known = self._known_servers()
        former = known.get(key)
        _refuse_a_taken_place(known, key, host=host, port=port)
        place = self._place(former, host=host, port=port, sslmode=sslmode, sslrootcert=sslrootcert)
        self._refuse_what_the_environment_contradicts(former, place)
        access = self._access(key, place)
        self._refuse_another_cluster(known, key, access)
        values: dict[str, Any] = place._asdict() | {"max_connections": _examine(key, access)}
        if capacity is not None:
            values["capacity"] = capacity
        with self._engine.begin() as connection:
            registry.lock_servers(connection)
            known = {server.key: server for server in registry.list_servers(connection)}
            now = known.get(key)
            if now is not None and now.place not in {place, former and former.place}:
                raise ServerConflictError(f"Somebody else has just changed server {key}: look at it, and try again.")
            _refuse_a_taken_place(known, key, host=host, port=port)
            registry.save_server(connection, key, **values)
            note(connection, Operation.SERVER_CHANGED if now else Operation.SERVER_ADDED, target=key, detail=values)
            server = _find(connection, key)
        self._servers.take(server)
        _log.info("shard_server_changed" if now else "shard_server_added", server=key)
        return server, now is None

    def drain(self, key: str) -> Server:
        """The server, which takes no new practices from now on; those it has stay. Raises ServerUnknownError."""
        return self._set_state(key, ServerState.DRAINING)

    def open(self, key: str) -> Server:
        """The server, which takes new practices again. Raises ServerUnknownError."""
        return self._set_state(key, ServerState.OPEN)

    def require_draining(self, key: str) -> None:
        """Raises ServerUnknownError, ServerConflictError unless the server is being drained."""
        with self._engine.begin() as connection:
            server = _find(connection, key)
        if server.state is not ServerState.DRAINING:
            raise ServerConflictError(f"Server {key} is {server.state}: drain it first.")

    def remove(self, key: str) -> None:
        """Forgets a drained server that holds nothing. Raises ServerUnknownError, ServerConflictError."""
        with self._engine.begin() as connection:
            registry.lock_servers(connection)
            server = _find(connection, key)
            if key in self._named_by_environment():
                raise ServerConflictError(f"The environment names server {key}: take it out of SHARD_SERVERS first.")
            if server.state is not ServerState.DRAINING:
                raise ServerConflictError(f"Server {key} is {server.state}: drain it first.")
            if registry.is_used(connection, key):
                left = (
                    f"practices ({server.practices})"
                    if server.practices
                    else "copies, or shards that are being dropped: wait"
                )
                raise ServerConflictError(f"Server {key} still holds {left}.")
            registry.remove_server(connection, key)
            note(connection, Operation.SERVER_REMOVED, target=key)
        self._servers.forget(key)

    def _set_state(self, key: str, state: ServerState) -> Server:
        with self._engine.begin() as connection:
            _find(connection, key)
            registry.set_state(connection, key, state)
            is_draining = state is ServerState.DRAINING
            note(connection, Operation.SERVER_DRAINED if is_draining else Operation.SERVER_OPENED, target=key)
            server = _find(connection, key)
        self._servers.describe(server)
        _log.info("shard_server_set", server=key, state=state)
        return server

    def _known_servers(self) -> dict[str, Server]:
        with self._engine.begin() as connection:
            return {server.key: server for server in registry.list_servers(connection)}

    def _named_by_environment(self) -> set[str]:
        return {address.key for address in self._settings.servers}

    def _refuse_what_the_environment_contradicts(self, former: Server | None, place: Place) -> None:
        """It would be set back within seconds."""
        if former is not None and former.key in self._named_by_environment() and place != former.place:
            raise ServerConflictError(
                f"The environment says where server {former.key} is and how it is reached: SHARD_SERVERS, DB_SSLMODE,"
                " DB_SSLROOTCERT."
            )

    def _place(
        self, former: Server | None, *, host: str, port: int, sslmode: str | None, sslrootcert: str | None
    ) -> Place:
        """Whoever says nothing of TLS keeps what is, or gets what is safe."""
        if former is not None:
            return Place(host, port, sslmode or former.sslmode, sslrootcert or former.sslrootcert)
        mode = sslmode or safe_sslmode(host)
        return Place(host, port, mode, sslrootcert or (self._settings.db_sslrootcert if mode in _VERIFYING else None))

    def _access(self, key: str, place: Place) -> Access:
        """By the credentials as they are now. Raises ServerUnsuitableError."""
        try:
            credentials = self._settings.admin_of(key)
        except UnreadableSecretError as fault:
            raise _unsuitable(key, [Fault("credentials", str(fault))], user="") from fault
        return Access(place.host, place.port, *credentials, place.sslmode, place.sslrootcert)

    def _refuse_another_cluster(self, known: dict[str, Server], key: str, access: Access) -> None:
        """A server is known by the practices it holds, at whatever address.

        Raises ServerConflictError, or ServerUnsuitableError when it can't be asked.
        """
        former = known.get(key)
        has_moved = former is not None and (former.host, former.port) != (access.host, access.port)
        with self._engine.begin() as connection:
            fleet_id = directory.fleet_id(connection)
            placed = {one: directory.ready_on(connection, one) for one in known}
        try:
            found = _shards_at(access, fleet_id)
        except FAULTS as fault:
            if not has_moved:
                raise _unsuitable(key, [_unreachable(fault)], user=access.user) from fault
            found = set()
        for other, databases in placed.items():
            if other != key and databases and databases <= found:
                raise ServerConflictError(f"The server at {access.host}:{access.port} is server {other}.")
        if former is not None and has_moved and not (placed[key] and placed[key] <= found):
            raise ServerConflictError(
                f"Server {key} is at {former.host}:{former.port}, and the one at {access.host}:{access.port} does not"
                " hold its practices. Give another server another key."
            )


def _shards_at(access: Access, fleet_id: uuid.UUID) -> set[str]:
    """This fleet's databases on a server. Raises what servers.FAULTS lists."""
    admin = ServerAdmin(access)
    try:
        with admin.session() as session:
            return set(shard_database.stamped_with(session, fleet_id))
    finally:
        admin.close()


def _examine(key: str, access: Access) -> int:
    """The server's max_connections. Does what is left of its preparation, if the admin may.

    Raises ServerUnsuitableError.
    """
    admin = ServerAdmin(access)
    try:
        faults, max_connections = _examined(admin)
    except FAULTS as fault:
        faults, max_connections = [_unreachable(fault)], 0
    finally:
        admin.close()
    if faults:
        raise _unsuitable(key, faults, user=access.user)
    return max_connections


def _examined(admin: ServerAdmin) -> tuple[list[Fault], int]:
    faults = server_check.door_faults(admin.access)
    with admin.session() as session:
        max_connections = server_check.max_connections(session)
        old = server_check.version_faults(session)
        if old:
            return [*faults, *old], max_connections
        server_check.prepare_what_it_may(session)
        faults += server_check.rights_faults(session)
    try:
        return faults or server_check.template_faults(admin), max_connections
    except TemplateDriftedError as fault:
        return [Fault("template", f"its template is not what the migrations lead to:\n{fault}")], max_connections


def _unreachable(fault: Exception) -> Fault:
    return Fault("connection", str(getattr(fault, "orig", fault)).strip())


def _unsuitable(key: str, faults: list[Fault], *, user: str) -> ServerUnsuitableError:
    setting = f"SERVER_{key.replace('-', '_').upper()}"
    remedies = {
        "credentials": "tenant-service must be able to read it.",
        "connection": f"tenant-service logs in as {user}, by {setting}_USER and {setting}_PASS or else DB_USER and"
        f" DB_PASS; `{_PREPARE}` makes the role {TENANT_ROLE}.",
        "rights": f"A superuser gives them to {TENANT_ROLE}, with: {_PREPARE}"
        + ("" if user == TENANT_ROLE else f". {user} would do as a superuser."),
        "public": f"A superuser takes it away, with: {_PREPARE}",
        "password": "Every line for other machines must say scram-sha-256.",
    }
    shown = [
        {
            "field": fault.matter,
            "message": f"{fault.message.removesuffix('.')}. {remedies.get(fault.matter, '')}".strip(),
        }
        for fault in faults
    ]
    return ServerUnsuitableError(f"Server {key} was not added.", faults=shown)


def _find(connection: Connection, key: str) -> Server:
    for server in registry.list_servers(connection):
        if server.key == key:
            return server
    raise ServerUnknownError(f"There is no shard server {key}.")


def _refuse_a_taken_place(known: dict[str, Server], key: str, *, host: str, port: int) -> None:
    for server in known.values():
        if server.key != key and (server.host, server.port) == (host, port):
            raise ServerConflictError(f"The server at {host}:{port} has the key {server.key} already.")
