"""`prepare`, `prepare-server` and `migrate`: safe to repeat, and clear about what is missing."""

import contextlib
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from psycopg2 import sql
from sqlalchemy import CheckConstraint, create_engine
from tenant_stand import Fleet, environment_of, execute_at, query_at, run_cli

from gowebbo_stack.testing import PostgresServer
from tenant_service import preparation
from tenant_service.config import PrepareServerSettings
from tenant_service.exceptions import PreparationRefusedError
from tenant_service.schema import SCHEMA, metadata


@pytest.fixture
def environment(postgres: PostgresServer) -> Iterator[dict[str, str]]:
    """Of a central database that isn't there yet; its name tries to break out of its quotes."""
    name = f'cent"ral; DROP ROLE {secrets.token_hex(4)} --'
    yield environment_of(postgres, name)
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    with contextlib.closing(psycopg2.connect(postgres.dsn())) as connection:
        connection.autocommit = True
        connection.cursor().execute(drop)


def log_in(environment: dict[str, str], role: str, *, password: str, database: str) -> None:
    psycopg2.connect(
        host=environment["DB_HOST"],
        port=environment["DB_PORT"],
        user=role,
        password=password,
        dbname=database,
    ).close()


def test_preparing_and_migrating_twice_works_even_with_a_hostile_database_name(environment: dict[str, str]) -> None:
    for command in ("prepare", "prepare", "migrate", "migrate", "prepare-server"):
        done = run_cli(command, environment)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_preparing_and_migrating_in_parallel_works(environment: dict[str, str]) -> None:
    for command in ("prepare", "migrate"):
        with ThreadPoolExecutor(3) as threads:
            done = list(threads.map(lambda _, command=command: run_cli(command, environment), range(3)))
        assert [one.stderr for one in done] == ["", "", ""]


def test_repeating_prepare_sets_new_passwords(environment: dict[str, str], postgres: PostgresServer) -> None:
    password = postgres.password
    assert run_cli("prepare", environment).returncode == 0
    try:
        changed = environment | {"AUTH_DB_PASS": "another-password", "TENANT_DB_PASS": "yet-another-password"}
        assert run_cli("prepare", changed).returncode == 0
        log_in(environment, "gowebbo_auth", password="another-password", database=environment["DB_NAME"])
        log_in(environment, "gowebbo_tenant", password="yet-another-password", database="postgres")
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            log_in(environment, "gowebbo_auth", password=password, database=environment["DB_NAME"])
    finally:
        assert run_cli("prepare", environment).returncode == 0


def test_the_server_is_given_verifiers_instead_of_passwords(fleet: Fleet, postgres: PostgresServer) -> None:
    shard = fleet.shard()
    rows = query_at(postgres.dsn(), "SELECT rolname, rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL")
    verifiers = dict(rows)
    assert verifiers["gowebbo_auth"].startswith("SCRAM-SHA-256$4096:")
    assert verifiers["gowebbo_tenant"].startswith("SCRAM-SHA-256$4096:")
    assert verifiers[shard.database].startswith("SCRAM-SHA-256$1:")


def test_the_services_roles_are_no_superusers_and_see_their_own_schema_only(fleet: Fleet) -> None:
    rows = fleet.query(
        "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolcanlogin"
        " FROM pg_roles WHERE rolname IN ('gowebbo_auth', 'gowebbo_tenant', 'shard_rw') ORDER BY 1"
    )
    assert rows == [
        ("gowebbo_auth", False, False, False, False, False, True),
        ("gowebbo_tenant", False, True, True, False, False, True),
        ("shard_rw", False, False, False, False, False, False),
    ]
    with contextlib.closing(
        psycopg2.connect(
            fleet.postgres.dsn(fleet.database).replace(f"//{fleet.postgres.superuser}:", "//gowebbo_auth:")
        )
    ) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE auth.mine (id int)")
        for statement in ("SELECT * FROM tenant.shards", "CREATE TABLE public.x (id int)", "CREATE SCHEMA x"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(statement)
            connection.rollback()


@pytest.mark.parametrize("database", ["central", "postgres", "template1"])
def test_an_unrelated_login_role_may_not_connect(fleet: Fleet, database: str) -> None:
    role = f"stranger_{secrets.token_hex(4)}"
    execute_at(fleet.postgres.dsn(), f"CREATE ROLE {role} LOGIN PASSWORD 'stranger'")
    try:
        name = fleet.database if database == "central" else database
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            log_in(fleet.environment, role, password="stranger", database=name)
    finally:
        execute_at(fleet.postgres.dsn(), f"DROP ROLE {role}")


def test_prepare_refuses_a_user_who_is_no_superuser(fleet: Fleet) -> None:
    weak = fleet.environment | {"DB_SUPERUSER": "gowebbo_tenant"}
    done = run_cli("prepare-server", weak)
    assert (done.returncode, done.stderr) == (1, "prepare-server: gowebbo_tenant is no superuser of this server.\n")


def test_prepare_refuses_an_old_server(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "OLDEST_VERSION", 990_000)
    values = {name.lower(): value for name, value in environment_of(postgres, "x").items()}
    with pytest.raises(PreparationRefusedError, match="PostgreSQL 15 or newer is needed; this server is version"):
        preparation.prepare_server(PrepareServerSettings(_env_file=None, **values))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("DB_SUPERUSER_PASS", "wrong", "password authentication failed"),
        ("DB_PORT", "1", "Connection refused"),
        ("TENANT_DB_PASS", "pässword", "TENANT_DB_PASS: a database password must be printable ASCII"),
        ("AUTH_DB_PASS", "two\tlines", "AUTH_DB_PASS: a database password must be printable ASCII"),
    ],
)
def test_prepare_says_what_is_wrong(environment: dict[str, str], setting: str, value: str, message: str) -> None:
    done = run_cli("prepare", environment | {setting: value})
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert environment["DB_SUPERUSER_PASS"] not in done.stderr


def test_missing_settings_are_listed_together(environment: dict[str, str]) -> None:
    done = run_cli("prepare", {name: environment[name] for name in ("DB_HOST", "DB_SUPERUSER")})
    assert done.returncode == 78
    assert {"DB_SUPERUSER_PASS", "TENANT_DB_PASS", "AUTH_DB_PASS"} <= {
        line.split(":")[0].strip() for line in done.stderr.splitlines()
    }


def test_migrating_before_preparing_says_so(environment: dict[str, str]) -> None:
    done = run_cli("migrate", environment)
    assert done.returncode == 1
    assert "does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_secrets_may_come_from_files(environment: dict[str, str], tmp_path) -> None:
    for name in ("DB_SUPERUSER_PASS", "AUTH_DB_PASS", "TENANT_DB_PASS"):
        file = tmp_path / name
        file.write_text(environment.pop(name) + "\n")
        environment[f"{name}_FILE"] = str(file)
    assert run_cli("prepare", environment).returncode == 0


def test_the_tables_in_code_equal_the_migrations(fleet: Fleet) -> None:
    engine = create_engine(fleet.postgres.dsn(fleet.database).replace("postgresql:", "postgresql+psycopg2:"))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
                "include_object": lambda _, name, *__: name != "alembic_version",
                "compare_server_default": True,
            },
        )
        differences = compare_metadata(context, metadata)
        checks = connection.exec_driver_sql(
            "SELECT conname FROM pg_constraint WHERE contype = 'c' AND connamespace = 'tenant'::regnamespace"
        )
        made = {row[0] for row in checks}
    engine.dispose()
    declared = {
        str(constraint.name)
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    assert differences == []
    assert made == declared
