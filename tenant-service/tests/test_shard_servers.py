"""Shard servers: what the environment says of them, which one takes a practice, and what is told of them."""

import secrets

import psycopg2
import pytest
from pydantic import ValidationError
from tenant_stand import (
    ADMIN,
    AUTH,
    GATEWAY,
    SHARD_SECRET,
    Fleet,
    Tenants,
    execute_at,
    new_fleet,
    query_at,
    serving,
    wait_for,
)

from gowebbo_stack.testing import PostgresServer
from shared.context import Caller
from shared.ids import new_id
from tenant_service import listing, migrating, preparation
from tenant_service.config import PrepareServerSettings, ServerAddress, Settings
from tenant_service.exceptions import NoServerAvailableError
from tenant_service.placement import choose_server
from tenant_service.storage.registry import Server, ServerState

REQUIRED = {"db_host": "db", "db_pass": "x", "shard_secret": SHARD_SECRET, "gateway_secret": SHARD_SECRET}


def settings(**values: object) -> Settings:
    return Settings(_env_file=None, **REQUIRED | values)


def server(key: str, *, practices: int = 0, capacity: int = 10, state: ServerState = ServerState.OPEN) -> Server:
    return Server(key, "db", 5432, "prefer", None, state, capacity, 100, practices)


def test_without_a_list_there_is_one_server_beside_the_central_database() -> None:
    assert settings(db_port=5433).servers == (ServerAddress("a", "db", 5433),)


def test_a_list_names_keys_hosts_and_ports() -> None:
    assert settings(shard_servers="a=db1:5432, west-2=10.0.0.1:5433,c=[::1]:5434,d=/var/run/pg:5435").servers == (
        ("a", "db1", 5432),
        ("west-2", "10.0.0.1", 5433),
        ("c", "::1", 5434),
        ("d", "/var/run/pg", 5435),
    )


@pytest.mark.parametrize("text", ["db1:5432", "A=db:1", "a=db", "a=db:x", "a=db:1,a=db:2", "a/b=db:1", "a=d b:1"])
def test_a_faulty_list_is_refused_at_start(text: str) -> None:
    with pytest.raises(ValidationError, match="shard_servers"):
        settings(shard_servers=text)


def test_a_servers_admin_comes_from_its_own_settings_or_the_central_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    assert settings().admin_of("a") == ("gowebbo_tenant", "x")
    file = tmp_path / "password"
    file.write_text("from-a-file\n")
    monkeypatch.setenv("SERVER_WEST_2_USER", "west_admin")
    monkeypatch.setenv("SERVER_WEST_2_PASS_FILE", str(file))
    assert settings().admin_of("west-2") == ("west_admin", "from-a-file")


def test_a_practice_goes_where_most_room_is() -> None:
    servers = [server("a", practices=9), server("b", practices=3), server("c", practices=5, capacity=20)]
    assert choose_server(servers, usable={"a", "b", "c"}).key == "c"
    assert choose_server(servers, usable={"a", "b"}).key == "b"


@pytest.mark.parametrize(
    ("servers", "usable"),
    [
        ([], set()),
        ([server("a")], set()),
        ([server("a", state=ServerState.FULL), server("b", state=ServerState.DRAINING)], {"a", "b"}),
    ],
)
def test_without_room_there_is_a_named_error(servers: list[Server], usable: set[str]) -> None:
    with pytest.raises(NoServerAvailableError):
        choose_server(servers, usable=usable)


def test_a_server_with_as_many_practices_as_it_may_have_is_full(fleet: Fleet) -> None:
    execute_at(fleet.postgres.dsn(fleet.database), "UPDATE tenant.servers SET capacity = 2")
    states = [(fleet.shard(), listing.known_servers(fleet.app.state.engine)[0].state)[1] for _ in range(2)]
    assert states == [ServerState.OPEN, ServerState.FULL]
    with pytest.raises(NoServerAvailableError):
        fleet.shard()


def test_a_look_at_servers_that_are_as_they_were_writes_nothing(fleet: Fleet) -> None:
    rows = "SELECT key, xmin::text, xmax::text FROM tenant.servers"
    before = fleet.query(rows)
    assert fleet.servers.refresh()
    assert fleet.query(rows) == before


def test_one_lost_connection_casts_no_doubt_on_a_server_that_answers(fleet: Fleet) -> None:
    lost = psycopg2.OperationalError("server closed the connection unexpectedly")
    fleet.servers.doubt("a", lost)
    assert fleet.servers.usable == {"a"}


def test_a_server_that_is_down_harms_neither_readiness_nor_sign_ups(postgres: PostgresServer) -> None:
    fleet = new_fleet(postgres, shard_servers=f"a={postgres.host}:{postgres.port},b=127.0.0.1:1")
    try:
        with serving(fleet) as tenants:
            wait_for(tenants.is_ready)
            assert [tenants.put(new_id()).json()["shard"][0] for _ in range(3)] == ["a", "a", "a"]
            listed = tenants.call("GET", "/api/v1/admin/servers", caller=ADMIN).json()["result"]["data"]
            down = {server["key"]: server for server in listed}["b"]
            assert (down["practices"], down["connections"]) == (0, None)
    finally:
        fleet.drop_everything()


def test_when_every_server_is_down_calls_are_answered_with_503(postgres: PostgresServer) -> None:
    fleet = new_fleet(postgres, shard_servers="a=127.0.0.1:1")
    try:
        with serving(fleet) as tenants:
            missing = wait_for(lambda: _missing(tenants).get("shard server a") == "not reachable" and _missing(tenants))
            assert missing == {"shard server a": "not reachable"}
            answer = tenants.put(new_id())
            assert (answer.status_code, answer.json()["type"]) == (503, "/errors/no-shard-server")
            assert answer.headers["retry-after"]
            assert tenants.call("GET", "/internal/servers", caller=GATEWAY).status_code == 200
    finally:
        fleet.drop_everything()


def _missing(tenants: Tenants) -> dict[str, str]:
    return tenants.call("GET", "/readyz", caller=None).json().get("missing", {})


def test_an_admin_role_without_its_rights_is_named(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    role = f"weak_{secrets.token_hex(4)}"
    execute_at(fleet.postgres.dsn(), f"CREATE ROLE {role} LOGIN CREATEDB PASSWORD 'weak'")
    execute_at(fleet.postgres.dsn(), f"GRANT CONNECT ON DATABASE postgres TO {role}")
    monkeypatch.setenv("SERVER_A_USER", role)
    monkeypatch.setenv("SERVER_A_PASS", "weak")
    try:
        assert fleet.servers.refresh() is False
        assert fleet.servers.missing() == {
            "shard server a": (
                "its admin role lacks CREATEROLE, the admin option of shard_rw, pg_signal_backend, SET on the stamps"
            )
        }
        with pytest.raises(NoServerAvailableError):
            fleet.shard()
    finally:
        fleet.start_over()
        execute_at(fleet.postgres.dsn(), f"DROP OWNED BY {role}")
        execute_at(fleet.postgres.dsn(), f"DROP ROLE {role}")


def test_a_server_that_was_not_prepared_is_named_and_used_once_it_is(postgres: PostgresServer, fleet: Fleet) -> None:
    execute_at(postgres.dsn(), "REVOKE pg_signal_backend FROM gowebbo_tenant")
    try:
        assert fleet.servers.refresh() is False
        assert fleet.servers.missing()["shard server a"] == "its admin role lacks pg_signal_backend"
    finally:
        values = {name.lower(): value for name, value in fleet.environment.items()}
        preparation.prepare_server(PrepareServerSettings(_env_file=None, **values))
    assert fleet.servers.refresh() is True
    assert fleet.shard().server == "a"


def test_services_are_told_where_servers_are(tenants: Tenants, postgres: PostgresServer) -> None:
    """And nothing else: no user, no password."""
    ((most,),) = query_at(postgres.dsn(), "SELECT current_setting('max_connections')::int")
    assert tenants.call("GET", "/internal/servers", caller=Caller(role="service:patient")).json() == {
        "servers": [
            {
                "key": "a",
                "host": postgres.host,
                "port": postgres.port,
                "sslmode": "prefer",
                "sslrootcert": None,
                "max_connections": most,
            }
        ]
    }


def test_the_admin_sees_servers_with_their_load(tenants: Tenants, postgres: PostgresServer) -> None:
    for _ in range(2):
        tenants.put(new_id())
    answer = tenants.call("GET", "/api/v1/admin/servers", caller=ADMIN).json()
    assert (answer["success"], answer["message"]) == (True, "Shard servers fetched successfully!")
    (listed,) = answer["result"]["data"]
    assert listed.pop("connections") > 0
    assert listed == {
        "key": "a",
        "host": postgres.host,
        "port": postgres.port,
        "state": "open",
        "practices": 2,
        "capacity": 5000,
    }


def test_the_admin_sees_the_directory_page_by_page(tenants: Tenants) -> None:
    practices = [new_id() for _ in range(5)]
    shards = {str(practice_id): tenants.put(practice_id).json() for practice_id in practices}
    path, seen = "/api/v1/admin/shards?limit=2&state=ready", []
    while path:
        answer = tenants.call("GET", path, caller=ADMIN)
        seen += answer.json()["result"]["data"]
        path = answer.links["next"]["url"] if "next" in answer.links else ""
        assert bool(path) == ("next_cursor" in answer.json()["result"])
    same = {"server": "a", "state": "ready", "revision": migrating.head(migrating.SHARD), "fence": None}
    assert seen == [
        {"practice_id": practice_id, "database": shard["database"], **same}
        for practice_id, shard in sorted(shards.items())
    ]
    assert tenants.call("GET", "/api/v1/admin/shards?state=undone", caller=ADMIN).json()["result"] == {"data": []}


@pytest.mark.parametrize(
    ("query", "status"),
    [("cursor=x", 400), ("cursor=", 400), ("cursor=WyJ4Il0", 400), ("limit=0", 422), ("state=x", 422)],
)
def test_a_faulty_query_is_told(tenants: Tenants, query: str, status: int) -> None:
    assert tenants.call("GET", f"/api/v1/admin/shards?{query}", caller=ADMIN).status_code == status


@pytest.mark.parametrize("path", ["/api/v1/admin/servers", "/api/v1/admin/shards"])
def test_only_the_platforms_admin_sees_the_platform(tenants: Tenants, path: str) -> None:
    for caller in (Caller(), Caller(role="owner", practice_id=str(new_id())), AUTH):
        assert tenants.call("GET", path, caller=caller).status_code == 403
    assert tenants.call("GET", path, caller=None).status_code == 401


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
