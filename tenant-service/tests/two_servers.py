"""A fleet on two real servers, 18 and 15, and what tests of moves and copies look at on both."""

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg2
from tenant_stand import SHARD_SECRET, Fleet, execute_at, new_fleet, query_at

from gowebbo_stack.testing import PostgresServer
from shared.ids import new_id
from shared.shards import shard_password
from tenant_service import preparation
from tenant_service.config import PrepareServerSettings
from tenant_service.storage import registry
from tenant_service.storage.directory import Shard

STAMPS = (
    "SELECT datname, split_part(setting, '=', 2) FROM pg_database JOIN pg_db_role_setting ON setdatabase = oid,"
    " unnest(setconfig) setting WHERE setting LIKE 'gowebbo.practice_id=%%'"
)


class TwoServers:
    """The fleet, and its servers by key."""

    def __init__(self, fleet: Fleet, servers: dict[str, PostgresServer]) -> None:
        self.fleet = fleet
        self.servers = servers

    def shard_on(self, key: str, *, patients: int = 0) -> Shard:
        """A new practice's shard on this server, with so many patients."""
        for other in self.servers:
            state = registry.ServerState.OPEN if other == key else registry.ServerState.DRAINING
            self.fleet.change("UPDATE tenant.servers SET state = %s WHERE key = %s", state, other)
        shard = self.fleet.shard()
        self.fleet.change("UPDATE tenant.servers SET state = 'open'")
        assert shard.server == key
        self.add_patients(shard, patients)
        return shard

    def add_patients(self, shard: Shard, count: int, *, size: int = 20) -> None:
        """So many more, each with a name of this size."""
        self.execute(
            shard,
            "INSERT INTO patients (id, name, mobile, age)"
            f" SELECT gen_random_uuid(), repeat('n', {size}), '12345', 3 FROM generate_series(1, {count})",
        )

    def dsn(self, key: str, database: str) -> str:
        return self.servers[key].dsn(database)

    def place(self, practice_id: uuid.UUID) -> tuple[str, str]:
        """Where the directory says it is: server and database."""
        [row] = self.fleet.query("SELECT server, database FROM tenant.shards WHERE practice_id = %s", str(practice_id))
        return row[0], row[1]

    def query(self, shard: Shard, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What the superuser sees where the practice is now."""
        return query_at(self.dsn(*self.place(shard.practice_id)), query, *parameters)

    def execute(self, shard: Shard, statement: str, *parameters: Any) -> None:
        execute_at(self.dsn(*self.place(shard.practice_id)), statement, *parameters)

    def patients(self, shard: Shard) -> set[str]:
        """The ids of the practice's patients."""
        return {row[0] for row in self.query(shard, "SELECT id::text FROM patients")}

    def rows(self, key: str, database: str) -> list[tuple[Any, ...]]:
        """Every row of a database, written alike."""
        return query_at(self.dsn(key, database), "SELECT p::text FROM patients p ORDER BY id")

    def log_in(self, shard: Shard, *, key: str | None = None) -> psycopg2.extensions.connection:
        """Connects as the shard's own role: where the directory says, or at another server."""
        where, database = self.place(shard.practice_id)
        server = self.servers[key or where]
        return psycopg2.connect(
            host=server.host,
            port=server.port,
            user=database,
            password=shard_password(SHARD_SECRET.encode(), database),
            dbname=database,
        )

    def stamps(self, key: str) -> dict[str, str]:
        """Whose each database of a server says it is."""
        return dict(query_at(self.servers[key].dsn(), STAMPS))

    def databases(self, key: str) -> set[str]:
        """The shards, copies and warm shards of this fleet on a server."""
        [(fleet_id,)] = self.fleet.query("SELECT id FROM tenant.fleet")
        mine = STAMPS.replace("gowebbo.practice_id", "gowebbo.fleet_id")
        found = query_at(self.servers[key].dsn(), mine)
        return {database for database, stamp in found if stamp == str(fleet_id)}


@contextlib.contextmanager
def on_two_servers(first: PostgresServer, second: PostgresServer) -> Iterator[TwoServers]:
    """A fleet on both."""
    values = {"db_host": second.host, "db_port": second.port, "db_superuser_pass": second.password}
    preparation.prepare_server(PrepareServerSettings(_env_file=None, tenant_db_pass=first.password, **values))
    where = f"a={first.host}:{first.port},b={second.host}:{second.port}"
    fleet = new_fleet(first, shard_servers=where, further={"SHARD_SERVERS": where})
    assert fleet.servers.refresh()
    both = TwoServers(fleet, {"a": first, "b": second})
    try:
        yield both
    finally:
        for name in both.databases("b"):
            execute_at(second.dsn(), f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            execute_at(second.dsn(), f'DROP ROLE IF EXISTS "{name}"')
        fleet.drop_everything()


def unknown_practice() -> uuid.UUID:
    """One that has no shard."""
    return new_id()
