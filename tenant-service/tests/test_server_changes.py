"""A known shard server: what may change of it, what is a conflict; its credentials are read when they are needed."""

from pathlib import Path
from typing import Any

import pytest
from server_stand import SERVERS, Add, faults, listed, sign_up
from tenant_stand import ADMIN, GATEWAY, Fleet, Tenants, execute_at

from gowebbo_stack.testing import PostgresServer, SecondPostgres


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
