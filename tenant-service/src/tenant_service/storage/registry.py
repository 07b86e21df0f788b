"""The shard servers and how many practices each has."""

from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, case, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from tenant_service.schema import copies, servers, shards, warm_shards


class ServerState(StrEnum):
    """Whether a shard server takes new practices. `full` is not stored: it is open and has as many as it may have."""

    OPEN = "open"
    FULL = "full"
    DRAINING = "draining"


class Place(NamedTuple):
    """Where a server is and how the connection to it is protected."""

    host: str
    port: int
    sslmode: str
    sslrootcert: str | None


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

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.host, self.port, self.sslmode, self.sslrootcert)


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


def lock_servers(connection: Connection) -> None:
    """Lets no other transaction add, move or remove a server until this one ends; practices may be placed meanwhile."""
    connection.execute(text(f"LOCK TABLE {servers.fullname} IN SHARE ROW EXCLUSIVE MODE"))


def save_server(connection: Connection, key: str, **values: Any) -> None:
    """Adds a server, or changes these columns of it."""
    statement = insert(servers).values(key=key, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_=values))


def set_state(connection: Connection, key: str, state: ServerState) -> None:
    """Opens a server or drains it."""
    connection.execute(update(servers).where(servers.c.key == key).values(state=state))


def is_used(connection: Connection, key: str) -> bool:
    """Whether anything of this fleet is or may be there: practices, leftovers of sign-ups, warm shards, copies."""
    placed = select(shards.c.server).where(shards.c.server == key)
    warm = select(warm_shards.c.server).where(warm_shards.c.server == key)
    copied = select(copies.c.server).where(copies.c.server == key)
    return bool(connection.scalar(select(or_(placed.exists(), warm.exists(), copied.exists()))))


def remove_server(connection: Connection, key: str) -> None:
    """Forgets a server. The database refuses while something is on it."""
    connection.execute(delete(servers).where(servers.c.key == key))


def note_max_connections(connection: Connection, key: str, max_connections: int) -> None:
    """What the server says of itself."""
    connection.execute(
        update(servers)
        .where(servers.c.key == key, servers.c.max_connections != max_connections)
        .values(max_connections=max_connections)
    )
