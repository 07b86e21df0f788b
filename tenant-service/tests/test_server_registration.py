"""Shard servers at runtime: checked before they are believed, drained, opened, removed."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest
from tenant_stand import ADMIN, AUTH, GATEWAY, Fleet, Tenants, execute_at, new_fleet, query_at, serving, wait_for

from gowebbo_stack.certificates import make_certificate
from gowebbo_stack.testing import PostgresServer, SecondPostgres
from shared.context import Caller
from shared.ids import new_id
from tenant_service import preparation, server_check
from tenant_service.config import PrepareServerSettings, safe_sslmode

SERVERS = "/api/v1/admin/servers"
SCRAM_ONLY = "host all all all scram-sha-256\n"
SHOWN = {"key", "host", "port", "state", "practices", "capacity", "connections"}


def set_hba(server: PostgresServer, lines: str) -> None:
    """Changes whom the server lets in, and how; the superuser keeps its way."""
    (server.data / "pg_hba.conf").write_text(f"host all {server.superuser} all scram-sha-256\n{lines}")
    execute_at(server.dsn(), "SELECT pg_reload_conf()")


def let_in_by(server: PostgresServer, lines: str, *, role: str, told: str) -> None:
    """The same, and waits until it is so."""
    set_hba(server, lines)

    def refused() -> bool:
        try:
            psycopg2.connect(host=server.host, port=server.port, user=role, password="x", dbname=role).close()
        except psycopg2.OperationalError as fault:
            return told in str(fault)
        return False

    wait_for(refused)


def make_pristine(server: PostgresServer) -> None:
    """Takes away whatever a test has made on a server: nobody has prepared it then."""
    set_hba(server, SCRAM_ONLY)
    for (name,) in query_at(server.dsn(), r"SELECT datname FROM pg_database WHERE datname ~ '^(shard|gowebbo)_'"):
        execute_at(server.dsn(), f'ALTER DATABASE "{name}" IS_TEMPLATE false')
        execute_at(server.dsn(), f'DROP DATABASE "{name}" WITH (FORCE)')
    for database in server_check.PUBLIC_DATABASES:
        execute_at(server.dsn(), f"GRANT CONNECT, TEMPORARY ON DATABASE {database} TO PUBLIC")
    roles = query_at(
        server.dsn(),
        "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND oid > 16383 ORDER BY rolname = 'shard_rw'",
    )
    for (name,) in roles:
        execute_at(server.dsn(), f'DROP OWNED BY "{name}"')
        execute_at(server.dsn(), f'DROP ROLE "{name}"')


@pytest.fixture
def second(postgres15: PostgresServer) -> Iterator[PostgresServer]:
    """An unprepared PostgreSQL 15."""
    yield postgres15
    make_pristine(postgres15)


@pytest.fixture
def as_superuser(second: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> PostgresServer:
    """The same, whose superuser is given to the service."""
    monkeypatch.setenv("SERVER_B_USER", second.superuser)
    monkeypatch.setenv("SERVER_B_PASS", second.password)
    return second


Add = Callable[..., httpx.Response]


@pytest.fixture
def add(tenants: Tenants) -> Add:
    """Adds a server as the operator does."""

    def call(server: PostgresServer, key: str = "b", **changes: Any) -> httpx.Response:
        body = {"key": key, "host": server.host, "port": server.port, **changes}
        return tenants.call("POST", SERVERS, caller=ADMIN, json=body)

    return call


def listed(tenants: Tenants) -> dict[str, dict[str, Any]]:
    answer = tenants.call("GET", SERVERS, caller=ADMIN)
    return {server["key"]: server for server in answer.json()["result"]["data"]}


def faults(answer: httpx.Response) -> dict[str, str]:
    assert (answer.status_code, answer.json()["type"]) == (422, "/errors/server-unsuitable"), answer.text
    return {fault["field"]: fault["message"] for fault in answer.json()["errors"]}


def sign_up(tenants: Tenants, count: int) -> list[str]:
    """The servers that so many new practices went to."""
    answers = [tenants.put(new_id()) for _ in range(count)]
    assert {answer.status_code for answer in answers} <= {200, 201}, [answer.text for answer in answers]
    return [answer.json()["shard"].partition("/")[0] for answer in answers]


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


def test_adding_again_changes_capacity_and_tls_and_nothing_else(
    tenants: Tenants, as_superuser: PostgresServer, add: Add, second_postgres: SecondPostgres
) -> None:
    assert add(as_superuser, capacity=7).status_code == 201
    again = add(as_superuser)
    assert (again.status_code, again.json()["result"]["capacity"]) == (200, 7)
    assert add(as_superuser, capacity=9).json()["result"]["capacity"] == 9
    proved = {"sslmode": "verify-full", "sslrootcert": str(second_postgres.authority)}
    assert add(as_superuser, **proved).status_code == 200
    add(as_superuser)
    told = {
        server["key"]: server for server in tenants.call("GET", "/internal/servers", caller=GATEWAY).json()["servers"]
    }
    assert told["b"]["sslmode"] == "verify-full"
    assert listed(tenants)["b"]["capacity"] == 9
    tenants.call("POST", f"{SERVERS}/b/drain", caller=ADMIN)
    assert add(as_superuser).json()["result"]["state"] == "draining"


def test_two_keys_or_two_places_of_one_server_are_a_conflict(
    tenants: Tenants, postgres: PostgresServer, as_superuser: PostgresServer, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_C_USER", as_superuser.superuser)
    monkeypatch.setenv("SERVER_C_PASS", as_superuser.password)
    assert add(as_superuser).status_code == 201
    for answer in (
        add(as_superuser, "c"),  # its place has another key
        add(as_superuser, "a"),  # the key has another place
        add(as_superuser, port=1),  # … and nothing answers there
        add(postgres),
        add(postgres, "a", sslmode="disable"),  # the environment says otherwise
        add(postgres, "a", host="localhost"),
    ):
        assert (answer.status_code, answer.json()["type"]) == (409, "/errors/server-conflict"), answer.text
    assert {key: server["port"] for key, server in listed(tenants).items()} == {
        "a": postgres.port,
        "b": as_superuser.port,
    }
    sign_up(tenants, 2)
    same = add(as_superuser, "c", host="localhost")
    assert (same.status_code, same.json()["detail"]) == (
        409,
        f"The server at localhost:{as_superuser.port} is server b.",
    )


def test_a_server_that_moved_is_known_by_the_practices_it_holds(
    tenants: Tenants, as_superuser: PostgresServer, add: Add
) -> None:
    assert add(as_superuser).status_code == 201
    assert add(as_superuser, host="localhost").status_code == 409  # it holds none yet
    sign_up(tenants, 2)
    moved = add(as_superuser, host="localhost")
    assert (moved.status_code, moved.json()["result"]["host"]) == (200, "localhost")
    assert sorted(sign_up(tenants, 2)) == ["a", "b"]


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "B"},
        {"key": "b/x"},
        {"key": "b\n"},
        {"key": ""},
        {"host": ""},
        {"host": "one,two"},
        {"host": "a b"},
        {"host": "-c"},
        {"host": 5},
        {"port": 0},
        {"port": 65536},
        {"port": "5432"},
        {"sslmode": "none"},
        {"sslrootcert": "relative.pem"},
        {"sslrootcert": ""},
        {"capacity": -1},
        {"capacity": 1.5},
        {"capacity": True},
        {"state": "open"},
        {"password": "x"},
    ],
)
def test_a_malformed_server_is_refused(tenants: Tenants, changes: dict[str, Any]) -> None:
    answer = tenants.call("POST", SERVERS, caller=ADMIN, json={"key": "b", "host": "db", "port": 1} | changes)
    assert (answer.status_code, answer.json()["type"]) == (422, "/errors/validation")
    assert [fault["field"] for fault in answer.json()["errors"]] == list(changes)


def test_credentials_are_read_when_they_are_needed(
    tenants: Tenants, second: PostgresServer, add: Add, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    monkeypatch.setenv("SERVER_B_USER", second.superuser)
    monkeypatch.setenv("SERVER_B_PASS_FILE", str(file))
    assert str(file) in faults(add(second))["credentials"]
    file.write_text("wrong\n")
    message = faults(add(second))["connection"]
    assert "password authentication failed" in message
    assert "SERVER_B_USER and SERVER_B_PASS" in message
    file.write_text(f"{second.password}\n")
    assert add(second).status_code == 201
    assert second.password not in str(listed(tenants))


def test_an_unreadable_password_keeps_no_other_server_from_working(
    fleet: Fleet, as_superuser: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute_at(
        fleet.postgres.dsn(fleet.database),
        "INSERT INTO tenant.servers (key, host, port, sslmode) VALUES ('b', %s, %s, 'prefer')",
        as_superuser.host,
        as_superuser.port,
    )
    monkeypatch.delenv("SERVER_B_PASS")
    monkeypatch.setenv("SERVER_B_PASS_FILE", "/nowhere/password")
    assert fleet.servers.refresh() is False
    assert fleet.servers.usable == {"a"}
    execute_at(fleet.postgres.dsn(fleet.database), "UPDATE tenant.servers SET state = 'draining' WHERE key = 'a'")
    fleet.servers.refresh()
    assert fleet.servers.missing() == {
        "shard server a": "is draining",
        "shard server b": "SERVER_B_PASS_FILE: No such file or directory: /nowhere/password",
    }


def test_a_drained_server_keeps_its_practices_and_gets_no_more(
    tenants: Tenants, as_superuser: PostgresServer, add: Add
) -> None:
    practice = new_id()
    place = tenants.put(practice).json()["shard"]
    tenants.call("POST", f"{SERVERS}/a/drain", caller=ADMIN)
    assert not tenants.is_ready()  # at once, and so is the way back
    tenants.call("POST", f"{SERVERS}/a/open", caller=ADMIN)
    assert tenants.is_ready()
    assert add(as_superuser).status_code == 201
    for _ in range(2):  # repeatable
        drained = tenants.call("POST", f"{SERVERS}/a/drain", caller=ADMIN)
        assert (drained.status_code, drained.json()["result"]["state"]) == (200, "draining")
    assert sign_up(tenants, 3) == ["b", "b", "b"]
    assert tenants.put(practice).json()["shard"] == tenants.get(practice).json()["shard"] == place
    for _ in range(2):
        opened = tenants.call("POST", f"{SERVERS}/a/open", caller=ADMIN)
        assert (opened.status_code, opened.json()["result"]["state"]) == (200, "open")
    assert sign_up(tenants, 1) == ["a"]


def test_with_every_server_full_or_draining_readiness_names_them(
    tenants: Tenants, fleet: Fleet, as_superuser: PostgresServer, add: Add
) -> None:
    assert add(as_superuser, capacity=1).status_code == 201
    assert listed(tenants)["b"]["state"] == "open"
    tenants.call("POST", f"{SERVERS}/a/drain", caller=ADMIN)
    assert sign_up(tenants, 1) == ["b"]
    assert listed(tenants)["b"]["state"] == "full"
    refused = tenants.put(new_id())
    assert (refused.status_code, refused.json()["type"]) == (503, "/errors/no-shard-server")
    assert refused.headers["retry-after"]

    def missing() -> dict[str, str]:
        return tenants.call("GET", "/readyz", caller=None).json().get("missing", {})

    fleet.servers.refresh()
    assert missing() == {"shard server a": "is draining", "shard server b": "is full"}
    assert add(as_superuser, capacity=2).json()["result"]["state"] == "open"
    assert tenants.is_ready()
    assert sign_up(tenants, 1) == ["b"]


def test_a_server_can_be_removed_once_it_is_drained_and_empty(
    tenants: Tenants, fleet: Fleet, as_superuser: PostgresServer, add: Add
) -> None:
    def remove(key: str) -> httpx.Response:
        return tenants.call("DELETE", f"{SERVERS}/{key}", caller=ADMIN)

    assert add(as_superuser).status_code == 201
    practices = [new_id() for _ in range(2)]
    for practice in practices:
        tenants.put(practice)
    assert remove("b").json()["detail"] == "Server b is open: drain it first."
    tenants.call("POST", f"{SERVERS}/b/drain", caller=ADMIN)
    assert remove("b").json()["detail"] == "Server b still holds practices (1)."
    for practice in practices:
        tenants.delete(practice)
    tenants.call("POST", f"{SERVERS}/a/drain", caller=ADMIN)
    assert remove("a").json()["detail"] == "The environment names server a: take it out of SHARD_SERVERS first."
    assert remove("b").status_code == 200
    assert set(listed(tenants)) == {"a"}
    assert remove("b").status_code == 404
    assert fleet.servers.refresh() is True
    assert fleet.servers.usable == {"a"}
    assert add(as_superuser).status_code == 201
    assert sign_up(tenants, 1) == ["b"]


def test_replicas_learn_of_a_server_by_themselves(
    fleet: Fleet, tenants: Tenants, as_superuser: PostgresServer, add: Add
) -> None:
    replica = Fleet(fleet.postgres, fleet.database, fleet.settings)
    replica.servers.refresh()
    try:
        assert add(as_superuser).status_code == 201
        assert replica.servers.usable == {"a"}
        replica.servers.refresh()
        assert replica.servers.usable == {"a", "b"}
        tenants.call("POST", f"{SERVERS}/a/drain", caller=ADMIN)
        assert replica.shard().server == "b"  # the state is read for every sign-up
        tenants.call("POST", f"{SERVERS}/b/drain", caller=ADMIN)
        execute_at(fleet.postgres.dsn(fleet.database), "DELETE FROM tenant.shards")
        assert tenants.call("DELETE", f"{SERVERS}/b", caller=ADMIN).status_code == 200
        replica.servers.refresh()
        assert replica.servers.usable == {"a"}
    finally:
        replica.servers.close()
        replica.app.state.engine.dispose()


def test_a_server_that_died_a_moment_ago_is_passed_over(
    fleet: Fleet, as_superuser: PostgresServer, tenants: Tenants, add: Add
) -> None:
    """One sign-up finds out; the next ones go elsewhere without waiting for the next check."""
    assert add(as_superuser).status_code == 201
    execute_at(fleet.postgres.dsn(fleet.database), "UPDATE tenant.servers SET capacity = 9000 WHERE key = 'b'")
    let_in_by(as_superuser, "", role="nobody", told="no pg_hba.conf entry")
    (as_superuser.data / "pg_hba.conf").write_text(f"local all {as_superuser.superuser} trust\n")
    try:
        os.kill(as_superuser.pid, 1)
        fleet.servers.admin("b").close()
        wait_for(lambda: tenants.put(new_id()).status_code == 503)
        assert sign_up(tenants, 3) == ["a", "a", "a"]
    finally:
        (as_superuser.data / "pg_hba.conf").write_text(SCRAM_ONLY)
        os.kill(as_superuser.pid, 1)
        wait_for(lambda: query_or_none(as_superuser))


def test_a_deed_that_only_waited_too_long_casts_no_doubt_on_the_server(fleet: Fleet) -> None:
    practice_id = new_id()
    shard, _ = fleet.provisioning._reserve(practice_id)
    with fleet.servers.admin("a").locked(shard.name.database), pytest.raises(psycopg2.errors.LockNotAvailable):
        fleet.provisioning.ensure(practice_id)
    assert fleet.servers.usable == {"a"}


def query_or_none(server: PostgresServer) -> list[tuple[Any, ...]] | None:
    try:
        return query_at(server.dsn(), "SELECT 1")
    except psycopg2.OperationalError:
        return None


@pytest.mark.parametrize("path", ["/nosuch/drain", "/nosuch/open"])
def test_an_unknown_key_is_not_found(tenants: Tenants, path: str) -> None:
    answer = tenants.call("POST", SERVERS + path, caller=ADMIN)
    assert (answer.status_code, answer.json()["type"]) == (404, "/errors/server-unknown")
    assert tenants.call("POST", f"{SERVERS}/No/drain", caller=ADMIN).status_code == 422


@pytest.mark.parametrize(
    ("method", "path"), [("POST", ""), ("POST", "/a/drain"), ("POST", "/a/open"), ("DELETE", "/a")]
)
def test_only_the_platforms_admin_changes_the_servers(tenants: Tenants, method: str, path: str) -> None:
    body = {"key": "b", "host": "db"} if not path else None
    for caller in (Caller(), Caller(role="owner", practice_id=str(new_id())), AUTH):
        assert tenants.call(method, SERVERS + path, caller=caller, json=body).status_code == 403
    assert tenants.call(method, SERVERS + path, caller=None, json=body).status_code == 401


def test_a_server_of_the_environment_is_checked_alike(postgres: PostgresServer, as_superuser: PostgresServer) -> None:
    """But never prepared: its admin may be a superuser by mistake."""
    fleet = new_fleet(
        postgres,
        shard_servers=f"a={postgres.host}:{postgres.port},b={as_superuser.host}:{as_superuser.port}",
    )
    try:
        let_in_by(as_superuser, "host all all all trust\n", role="nobody", told='role "nobody" does not exist')
        assert fleet.servers.refresh() is False
        assert fleet.servers.usable == {"a"}
        with serving(fleet) as tenants:
            wait_for(tenants.is_ready)
            assert sign_up(tenants, 2) == ["a", "a"]
        execute_at(postgres.dsn(fleet.database), "UPDATE tenant.servers SET state = 'draining' WHERE key = 'a'")
        fleet.servers.refresh()
        assert fleet.servers.missing()["shard server b"] == (
            "its pg_hba.conf lets in roles of shards without scram-sha-256;"
            " its admin role lacks the admin option of shard_rw; PUBLIC may connect to postgres, template1"
        )
    finally:
        fleet.drop_everything()
