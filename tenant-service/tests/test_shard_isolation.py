"""PostgreSQL itself keeps practices apart: what the real role of a shard, with its real password, can and can't do."""

import contextlib
from collections.abc import Iterator
from itertools import permutations

import psycopg2
import pytest
from psycopg2.errors import InsufficientPrivilege, QueryCanceled
from tenant_stand import Fleet, new_fleet

from gowebbo_stack.testing import PostgresServer
from shared.ids import new_id
from shared.shards import shard_password
from tenant_service.storage.directory import Shard
from tenant_service.templates import template_name


@pytest.fixture
def shards(fleet: Fleet) -> list[Shard]:
    return [fleet.shard() for _ in range(5)]


@pytest.fixture
def shard(fleet: Fleet) -> Shard:
    return fleet.shard()


def test_a_shards_role_logs_in_to_its_own_database_only(fleet: Fleet, shards: list[Shard]) -> None:
    for shard in shards:
        fleet.log_in(shard.database, shard.database).close()
    for own, other in permutations(shards, 2):
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            fleet.log_in(own.database, other.database)


@pytest.mark.parametrize("database", ["central", "postgres", "template1", "template0", "template"])
def test_a_shards_role_reaches_no_other_database_of_the_server(fleet: Fleet, shard: Shard, database: str) -> None:
    name = {"central": fleet.database, "template": template_name()}.get(database, database)
    with pytest.raises(psycopg2.OperationalError, match=r"permission denied|not currently accepting connections"):
        fleet.log_in(shard.database, name)


def test_a_shards_role_can_not_become_the_group_where_postgresql_can_forbid_it(fleet: Fleet, shard: Shard) -> None:
    with contextlib.closing(fleet.log_in(shard.database, shard.database)) as connection, connection.cursor() as cursor:
        if connection.server_version >= 160_000:
            with pytest.raises(InsufficientPrivilege):
                cursor.execute("SET ROLE shard_rw")
            connection.rollback()
        cursor.execute("SELECT count(*) FROM patients")
        assert cursor.fetchall() == [(0,)]


def test_another_shards_password_opens_nothing(fleet: Fleet, shards: list[Shard]) -> None:
    postgres = fleet.postgres
    for secret in (shards[1].database, ""):
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(
                host=postgres.host,
                port=postgres.port,
                user=shards[0].database,
                dbname=shards[0].database,
                password=shard_password(b"x" * 32, secret) if secret else "",
            )


@pytest.fixture(scope="module")
def isolated(postgres: PostgresServer) -> Iterator[tuple[Fleet, Shard, Shard]]:
    """Two practices that the refused statements can't change."""
    fleet = new_fleet(postgres)
    fleet.servers.refresh()
    yield fleet, fleet.shard(), fleet.shard()
    fleet.drop_everything()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM patients",
        "TRUNCATE patients",
        "ALTER TABLE patients ADD COLUMN x int",
        "ALTER TABLE patients DISABLE TRIGGER ALL",
        "DROP TABLE patients",
        "CREATE TABLE x (id int)",
        "CREATE TEMPORARY TABLE x (id int)",
        "CREATE SCHEMA x",
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "UPDATE alembic_version SET version_num = 'x'",
        "ALTER DATABASE {own} SET gowebbo.practice_id = 'x'",
        "ALTER ROLE {own} SET gowebbo.practice_id = 'x'",
        "ALTER ROLE {own} IN DATABASE {own} SET gowebbo.practice_id = 'x'",
        "ALTER ROLE {own} CONNECTION LIMIT -1",
        "ALTER ROLE {other} PASSWORD 'x'",
        "CREATE ROLE x",
        "CREATE DATABASE x",
        "DROP DATABASE {other}",
        "SET ROLE gowebbo_tenant",
        "SET ROLE {other}",
        "GRANT shard_rw TO {other}",
        "SELECT * FROM pg_authid",
        "COPY patients TO PROGRAM 'true'",
        "COPY patients TO '/tmp/x'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gowebbo_tenant'",
    ],
)
def test_a_shards_role_may_only_read_and_write_rows(isolated: tuple[Fleet, Shard, Shard], statement: str) -> None:
    fleet, own, other = isolated
    with contextlib.closing(fleet.log_in(own.database, own.database)) as connection:
        connection.autocommit = True
        with pytest.raises(InsufficientPrivilege):
            connection.cursor().execute(statement.format(own=own.database, other=other.database))


def test_a_shards_role_can_hand_on_none_of_its_rights(isolated: tuple[Fleet, Shard, Shard]) -> None:
    """PostgreSQL only warns of a GRANT that grants nothing."""
    fleet, own, other = isolated
    with contextlib.closing(fleet.log_in(own.database, own.database)) as connection:
        connection.cursor().execute(f"GRANT CONNECT ON DATABASE {own.database} TO PUBLIC, {other.database}")
        connection.cursor().execute("GRANT ALL ON patients TO PUBLIC")
        connection.commit()
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        fleet.log_in(other.database, own.database)


def test_a_shards_role_reads_inserts_and_updates(fleet: Fleet, shard: Shard) -> None:
    with contextlib.closing(fleet.log_in(shard.database, shard.database)) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "INSERT INTO patients (id, name, mobile, age) VALUES (%s, 'A', '12345', 3)"
            " RETURNING is_deleted, version, created_at = updated_at",
            (str(new_id()),),
        )
        assert cursor.fetchall() == [(0, 1, True)]
        cursor.execute("UPDATE patients SET is_deleted = 1, version = version + 1 RETURNING version")
        assert cursor.fetchall() == [(2,)]
        with pytest.raises(psycopg2.errors.CheckViolation):
            cursor.execute("UPDATE patients SET is_deleted = 2")


def test_a_shard_bears_its_practices_and_its_fleets_stamp(fleet: Fleet, shard: Shard) -> None:
    ((fleet_id,),) = fleet.query("SELECT id::text FROM tenant.fleet")
    with contextlib.closing(fleet.log_in(shard.database, shard.database)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT current_setting('gowebbo.practice_id'), current_setting('gowebbo.fleet_id')")
        assert cursor.fetchall() == [(str(shard.practice_id), fleet_id)]


def test_the_role_brings_its_time_outs_and_its_connection_limit(fleet: Fleet, shard: Shard) -> None:
    with contextlib.ExitStack() as open_connections:
        for _ in range(8):
            connection = fleet.log_in(shard.database, shard.database)
            open_connections.callback(connection.close)
        cursor = connection.cursor()
        for setting, value in (
            ("statement_timeout", "5s"),
            ("lock_timeout", "2s"),
            ("idle_in_transaction_session_timeout", "10s"),
        ):
            cursor.execute(f"SHOW {setting}")
            assert cursor.fetchall() == [(value,)]
        with pytest.raises(psycopg2.OperationalError, match="too many connections for role"):
            fleet.log_in(shard.database, shard.database)
        cursor.execute("SET statement_timeout = '10ms'")
        with pytest.raises(QueryCanceled):
            cursor.execute("SELECT pg_sleep(10)")


def test_databases_are_utf8_and_sort_alike_everywhere(fleet: Fleet, shard: Shard) -> None:
    for database in (fleet.database, shard.database):
        assert fleet.query(
            "SELECT pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database WHERE datname = %s", database
        ) == [("UTF8", "C.UTF-8", "C.UTF-8")]
