"""The shard servers and how many practices each has."""

from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, case, func, select, update
from sqlalchemy.dialects.postgresql import insert

from tenant_service.schema import servers, shards


class ServerState(StrEnum):
    """Whether a shard server takes new practices. `full` is not stored: it is open and has as many as it may have."""

    OPEN = "open"
    FULL = "full"
    DRAINING = "draining"


class Server(NamedTuple):
    """A shard server; `capacity` and `practices` in practices."""

    key: str
    host: str
    port: int
    sslmode: str
    sslrootcert: str | None
    state: ServerState
    capacity: int
    max_connections: int
    practices: int


@cache
def _servers_and_practices() -> Select[tuple[Any, ...]]:
    """Built once: every sign-up asks for it, and building takes longer than asking."""
    placed = select(shards.c.server, func.count().label("practices")).group_by(shards.c.server).subquery()
    practices = func.coalesce(placed.c.practices, 0)
    is_full = and_(servers.c.state == ServerState.OPEN, practices >= servers.c.capacity)
    return (
        select(
            servers.c.key,
            servers.c.host,
            servers.c.port,
            servers.c.sslmode,
            servers.c.sslrootcert,
            case((is_full, ServerState.FULL), else_=servers.c.state).label("state"),
            servers.c.capacity,
            servers.c.max_connections,
            practices,
        )
        .outerjoin_from(servers, placed, servers.c.key == placed.c.server)
        .order_by(servers.c.key)
    )


def list_servers(connection: Connection) -> list[Server]:
    """All servers with the number of practices on each."""
    rows = connection.execute(_servers_and_practices())
    return [Server._make(row)._replace(state=ServerState(row.state)) for row in rows]


def upsert_server(
    connection: Connection, key: str, *, host: str, port: int, sslmode: str, sslrootcert: str | None
) -> None:
    """Makes a server known, or tells where it is now."""
    where = {"host": host, "port": port, "sslmode": sslmode, "sslrootcert": sslrootcert}
    statement = insert(servers).values(key=key, **where)
    connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_=where))


def note_max_connections(connection: Connection, key: str, max_connections: int) -> None:
    """What the server says of itself."""
    connection.execute(
        update(servers)
        .where(servers.c.key == key, servers.c.max_connections != max_connections)
        .values(max_connections=max_connections)
    )
