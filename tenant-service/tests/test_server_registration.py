"""A shard server is checked before it is believed, and every fault is named."""

from pathlib import Path
from typing import Any

import psycopg2
import pytest
from server_stand import SCRAM_ONLY, SHOWN, Add, faults, let_in_by, listed, sign_up
from tenant_stand import GATEWAY, Fleet, Tenants, execute_at, query_at

from gowebbo_stack.certificates import make_certificate
from gowebbo_stack.testing import PostgresServer, SecondPostgres
from tenant_service import preparation, server_check
from tenant_service.config import PrepareServerSettings, safe_sslmode


def test_a_superuser_is_all_that_a_new_server_needs(
    tenants: Tenants, fleet: Fleet, as_superuser: PostgresServer, add: Add
) -> None:
    answer = add(as_superuser)
    assert answer.status_code == 201, answer.text
    added = answer.json()["result"]
    assert set(added) == SHOWN
    assert {name: added[name] for name in ("key", "state", "practices", "capacity")} == {
        "key": "b",
        "state": "open",
        "practices": 0,
        "capacity": 5000,
    }
    assert added["connections"] > 0
    assert sorted(sign_up(tenants, 4)) == ["a", "a", "b", "b"]
    shard = next(
        row for row in fleet.query("SELECT database FROM tenant.shards WHERE server = 'b' AND state = 'ready'")
    )[0]
    rows = query_at(
        as_superuser.dsn(),
        "SELECT datname FROM pg_database WHERE has_database_privilege('public', oid, 'CONNECT') AND datallowconn",
    )
    assert rows == []
    told = {
        server["key"]: server for server in tenants.call("GET", "/internal/servers", caller=GATEWAY).json()["servers"]
    }
    assert told["b"] == {
        "key": "b",
        "host": as_superuser.host,
        "port": as_superuser.port,
        "sslmode": "prefer",
        "sslrootcert": None,
        "max_connections": 200,
    }
    assert query_at(as_superuser.dsn(shard), "SELECT count(*) FROM patients") == [(0,)]


def test_a_prepared_server_needs_no_superuser(
    tenants: Tenants, fleet: Fleet, second: PostgresServer, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "password authentication failed" in faults(add(second))["connection"]
    preparation.prepare_server(
        PrepareServerSettings(
            _env_file=None,
            db_host=second.host,
            db_port=second.port,
            db_superuser=second.superuser,
            db_superuser_pass=second.password,
            tenant_db_pass=fleet.postgres.password,
        )
    )
    answer = add(second)
    assert answer.status_code == 201, answer.text
    assert sorted(sign_up(tenants, 2)) == ["a", "b"]


@pytest.mark.parametrize("server", ["postgres", "postgres15"])
def test_a_missing_group_is_made_by_whoever_may(
    request: pytest.FixtureRequest, server: str, second: PostgresServer
) -> None:
    postgres: PostgresServer = request.getfixturevalue(server)
    from tenant_service import templates  # noqa: PLC0415
    from tenant_service.server_admin import Access, ServerAdmin  # noqa: PLC0415

    group, templates.SHARD_GROUP = templates.SHARD_GROUP, "shard_rw_of_a_test"
    execute_at(postgres.dsn(), "CREATE ROLE maker LOGIN CREATEDB CREATEROLE PASSWORD 'maker'")
    execute_at(postgres.dsn(), "GRANT CONNECT ON DATABASE postgres TO maker")
    admin = ServerAdmin(Access(postgres.host, postgres.port, "maker", "maker"))
    try:
        with admin.session() as session:
            before = server_check.missing_rights(session)
            server_check.prepare_what_it_may(session)
            assert set(before) - set(server_check.missing_rights(session)) == {"the admin option of shard_rw_of_a_test"}
            session.run(psycopg2.sql.SQL("CREATE ROLE member; GRANT shard_rw_of_a_test TO member; DROP ROLE member"))
    finally:
        admin.close()
        templates.SHARD_GROUP = group
        execute_at(postgres.dsn(), "DROP ROLE IF EXISTS shard_rw_of_a_test")
        execute_at(postgres.dsn(), "DROP OWNED BY maker")
        execute_at(postgres.dsn(), "DROP ROLE maker")


def test_every_fault_of_a_server_is_named_at_once(
    tenants: Tenants, second: PostgresServer, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute_at(second.dsn(), "CREATE ROLE weak LOGIN PASSWORD 'weak'")
    let_in_by(second, "host all all all trust\n", role="nobody", told='role "nobody" does not exist')
    monkeypatch.setenv("SERVER_B_USER", "weak")
    monkeypatch.setenv("SERVER_B_PASS", "weak")
    found = faults(add(second))
    assert set(found) == {"password", "rights", "public"}
    assert "lacks CREATEDB, CREATEROLE, the admin option of shard_rw, pg_signal_backend, SET" in found["rights"]
    assert "python -m tenant_service.cli prepare-server" in found["rights"]
    assert "PUBLIC may connect to postgres, template1" in found["public"]
    assert "prepare-server" in found["public"]
    assert set(listed(tenants)) == {"a"}
    assert sign_up(tenants, 1) == ["a"]


@pytest.mark.parametrize(
    ("lines", "told", "message"),
    [
        ("host all all all trust\n", 'role "nobody" does not exist', "lets in roles of shards without scram-sha-256"),
        ("host all all all password\n", "password authentication failed", "lets in roles of shards without scram"),
        ("host all someone all scram-sha-256\n", "no pg_hba.conf entry", "has no entry for roles of shards"),
    ],
)
def test_a_server_that_lets_in_otherwise_than_by_scram_is_refused(
    as_superuser: PostgresServer, add: Add, lines: str, told: str, message: str
) -> None:
    let_in_by(as_superuser, lines, role="nobody", told=told)
    assert message in faults(add(as_superuser))["password"]
    let_in_by(as_superuser, SCRAM_ONLY, role="nobody", told="password authentication failed")
    assert add(as_superuser).status_code == 201


def test_an_old_server_is_refused(as_superuser: PostgresServer, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_check, "OLDEST_VERSION", 180_000)
    assert faults(add(as_superuser)) == {"version": "PostgreSQL 15 or newer is needed; this is version 15."}


def test_a_server_that_can_make_no_template_is_refused(
    as_superuser: PostgresServer, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenant_service.templates.LOCALE", "nowhere.UTF-8")
    message = faults(add(as_superuser))["template"]
    assert message.startswith("no database for shards can be made: invalid")


def test_tls_is_proved_and_never_given_up_silently(  # noqa: PLR0917 - fixtures
    tenants: Tenants,
    postgres: PostgresServer,
    as_superuser: PostgresServer,
    add: Add,
    second_postgres: SecondPostgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    another, _, _ = make_certificate(tmp_path)
    proved = {"sslmode": "verify-full", "sslrootcert": str(second_postgres.authority)}
    assert (
        "certificate verify failed"
        in faults(add(as_superuser, sslmode="verify-full", sslrootcert=str(another)))["connection"]
    )
    assert (
        "does not exist" in faults(add(as_superuser, sslmode="verify-full", sslrootcert="/nowhere.pem"))["connection"]
    )
    monkeypatch.setenv("SERVER_C_USER", postgres.superuser)
    monkeypatch.setenv("SERVER_C_PASS", postgres.password)
    assert "does not support SSL" in faults(add(postgres, "c", host="localhost", **proved))["connection"]
    assert add(as_superuser, **proved).status_code == 201
    assert sorted(sign_up(tenants, 2)) == ["a", "b"]
    told = {
        server["key"]: server for server in tenants.call("GET", "/internal/servers", caller=GATEWAY).json()["servers"]
    }
    assert (told["b"]["sslmode"], told["b"]["sslrootcert"]) == tuple(proved.values())


@pytest.mark.parametrize(
    ("host", "mode"),
    [
        ("127.0.0.1", "prefer"),
        ("127.8.8.8", "prefer"),
        ("::1", "prefer"),
        ("localhost", "prefer"),
        ("/var/run/postgresql", "prefer"),
        ("db-b.internal", "verify-full"),
        ("10.0.0.7", "verify-full"),
        ("localhost.example.com", "verify-full"),
    ],
)
def test_beyond_this_machine_a_server_has_to_prove_who_it_is(host: str, mode: str) -> None:
    assert safe_sslmode(host) == mode


def test_on_a_unix_socket_nothing_can_be_encrypted(second: PostgresServer) -> None:
    """The rule alone: libpq takes no notice of sslmode there."""
    from tenant_service.server_admin import Access  # noqa: PLC0415

    class Unencrypted(Access):
        def connect(self, database: str, **parameters: str) -> Any:
            return Access(*self)._replace(sslmode="disable").connect(database, **parameters)

    found = server_check.door_faults(
        Unencrypted(second.host, second.port, second.superuser, second.password, "verify-full")
    )
    assert [fault.matter for fault in found] == ["tls"]
