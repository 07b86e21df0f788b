"""Shard servers at work: drained, opened, removed, known by all replicas, passed over when they are down."""

import os
from typing import Any

import httpx
import psycopg2
import pytest
from server_stand import SCRAM_ONLY, SERVERS, Add, let_in_by, listed, sign_up
from tenant_stand import ADMIN, AUTH, Fleet, Tenants, execute_at, new_fleet, query_at, serving, wait_for

from gowebbo_stack.testing import PostgresServer
from shared.context import Caller
from shared.ids import new_id


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
