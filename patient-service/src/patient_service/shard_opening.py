"""How a practice's shard is opened: as its own role, on the named server.

Only if the stamp is the practice's, and the shard as far migrated as this service needs it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self
from uuid import UUID

import psycopg2

from patient_service.exceptions import (
    MalformedPracticeError,
    MalformedShardError,
    ServerFullError,
    ShardMovedError,
    ShardUnavailableError,
    WrongShardError,
)
from patient_service.host_names import HostNames
from patient_service.schema import ACCEPTED_REVISIONS
from patient_service.servers import Server
from patient_service.shard_connection import ConnectError, ShardConnection
from shared.errors import ServiceError, ShardMaintenanceError
from shared.logs import get_logger
from shared.shards import PRACTICE_STAMP, ShardName, ShardNameError, shard_password

_WRONG_PASSWORD = "28P01"  # noqa: S105 - an SQLSTATE
_SERVER_FULL = "53300"
_NOT_HERE = frozenset({_WRONG_PASSWORD, "28000", "3D000", "42501", "55000"})
"""No such role or database, no right to connect, closed to connections: the directory knows where the shard is now."""
_NO_REVISION = frozenset({"42P01", "42703", "42501"})
"""No such table or column, or no right to read it: whatever this database is, it is none that migrations made."""
_STAMP = (
    "SELECT current_setting(%s, true), (SELECT string_agg(version_num, ',')::text FROM public.alembic_version),"
    " current_setting('max_connections')::int"
)
_PLANNING = {
    # Each statement is planned once a session. PostgreSQL would plan lists of a large practice anew each time: it takes
    # an unknown LIMIT for a tenth of the table. 92 instead of 225 µs for 20 of 10^6 patients, 148 instead of 184 of 50.
    "plan_cache_mode": "force_generic_plan",
    # All of them go down an index, in its order: the only plan that suits every practice and every limit.
    "enable_seqscan": "off",
    "enable_sort": "off",
    "jit": "off",
}
_KEEPALIVE = {
    # The server, too, is to notice within a minute that nobody is there: a role may have so many sessions only.
    "tcp_keepalives_idle": 30,
    "tcp_keepalives_interval": 10,
    "tcp_keepalives_count": 3,
}
_SESSION = {
    "application_name": "gowebbo-patient-service",
    "client_encoding": "UTF8",
    "options": " ".join(
        f"-c {name}={value}"
        for name, value in {"TimeZone": "UTC", "DateStyle": "ISO", **_PLANNING, **_KEEPALIVE}.items()
    ),
    "require_auth": "scram-sha-256",  # a false server gets no password out of us, and learns nothing from trust
    "gssencmode": "disable",  # would look for tickets, blocking
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}
_log = get_logger()


class Shard(NamedTuple):
    """A practice and where its data is."""

    practice_id: str
    name: ShardName

    @classmethod
    def of(cls, practice_id: str, shard: str) -> Self:
        """Reads the signed context. Raises MalformedPracticeError or MalformedShardError: there is no default."""
        try:
            well_formed = str(UUID(practice_id)) == practice_id
        except ValueError:
            well_formed = False
        if not well_formed:
            raise MalformedPracticeError
        try:
            return cls(practice_id, ShardName.parse(shard))
        except ShardNameError as fault:
            raise MalformedShardError from fault


class ShardOpener:
    """Opens connections with passwords derived from the shard secrets, the newest tried first."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(secrets)
        self._names = HostNames()

    async def open(self, server: Server, shard: Shard) -> ShardConnection:
        """A connection whose stamp and revision were checked.

        Raises ShardMovedError, ServerFullError, ShardUnavailableError, WrongShardError or ShardMaintenanceError. The
        caller limits the time.
        """
        connection = await self._connect(server, shard.name.database)
        try:
            await _check_stamp(connection, shard)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _connect(self, server: Server, database: str) -> ShardConnection:
        target = await self._target(server)
        for secret in self._secrets:
            try:
                return await ShardConnection.connect(
                    {**_SESSION, **target, "dbname": database, "user": database}
                    | {"password": shard_password(secret, database)}
                )
            except ConnectError as fault:
                if fault.sqlstate != _WRONG_PASSWORD:
                    raise _refusal(fault.sqlstate) from fault
        raise ShardMovedError

    async def _target(self, server: Server) -> dict[str, Any]:
        """Where to connect. libpq would block to find a name's addresses; it still checks certificates by the name."""
        target: dict[str, Any] = {"host": server.host, "port": server.port}
        if server.sslmode:
            target["sslmode"] = server.sslmode
        if server.sslrootcert:
            target["sslrootcert"] = server.sslrootcert
        if server.host.startswith("/"):
            return target
        try:
            addresses = await self._names.addresses(server.host, server.port)
        except OSError as fault:
            raise ShardUnavailableError from fault
        return target | {"host": ",".join([server.host] * len(addresses)), "hostaddr": ",".join(addresses)}


def _refusal(sqlstate: str | None) -> ServiceError:
    if sqlstate in _NOT_HERE:
        return ShardMovedError()
    return ServerFullError() if sqlstate == _SERVER_FULL else ShardUnavailableError()


async def _check_stamp(connection: ShardConnection, shard: Shard) -> None:
    """Whose it is, then how far it is; and how many connections its server allows."""
    try:
        ((stamp, revision, connection.max_connections),) = await connection.fetch(_STAMP, (PRACTICE_STAMP,))
    except psycopg2.Error as fault:
        if fault.pgcode in _NO_REVISION:
            raise _maintenance(shard, None) from fault
        raise ShardUnavailableError from fault
    if stamp != shard.practice_id.encode():
        _log.error("wrong_shard", practice_id=shard.practice_id, shard=str(shard.name))
        raise WrongShardError
    if revision not in ACCEPTED_REVISIONS:
        raise _maintenance(shard, revision)


def _maintenance(shard: Shard, revision: bytes | None) -> ShardMaintenanceError:
    _log.error("shard_revision_not_accepted", shard=str(shard.name), revision=(revision or b"none").decode())
    return ShardMaintenanceError()
