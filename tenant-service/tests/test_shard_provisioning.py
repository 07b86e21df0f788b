"""PUT, GET and DELETE of a shard: idempotent, bounded, and the same after any interruption."""

import contextlib
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
from tenant_stand import AUTH, GATEWAY, Fleet, Tenants, execute_at, query_at, serving, wait_for

from shared.context import Caller
from shared.ids import new_id
from shared.shards import ShardName
from tenant_service import shard_database, slots, templates
from tenant_service.server_admin import Access, AdminSession, ServerAdmin


def test_a_practice_gets_its_shard_once(tenants: Tenants, fleet: Fleet) -> None:
    practice_id = new_id()
    made = tenants.put(practice_id)
    again = tenants.put(practice_id)
    found = tenants.get(practice_id)
    assert (made.status_code, again.status_code, found.status_code) == (201, 200, 200)
    assert made.json() == again.json() == found.json()
    name = ShardName.parse(made.json()["shard"])
    assert made.json() == {
        "practice_id": str(practice_id),
        "shard": f"a/{name.database}",
        "database": name.database,
        "state": "ready",
    }
    assert fleet.databases() == {name.database: True}


def test_an_unknown_practice_has_no_shard(tenants: Tenants) -> None:
    answer = tenants.get(new_id())
    assert (answer.status_code, answer.json()["type"]) == (404, "/errors/shard-unknown")


@pytest.mark.parametrize("practice_id", ["x", "1; DROP DATABASE postgres", "shard_0123456789", "%00", "a" * 300])
def test_what_is_no_practice_id_never_becomes_a_name(tenants: Tenants, fleet: Fleet, practice_id: str) -> None:
    assert tenants.put(practice_id).status_code == 422
    assert fleet.databases() == {}


def test_an_undone_sign_up_leaves_nothing_and_cannot_come_back(tenants: Tenants, fleet: Fleet) -> None:
    practice_id = new_id()
    database = tenants.put(practice_id).json()["database"]
    assert tenants.delete(practice_id).json()["state"] == "undone"
    assert tenants.delete(practice_id).status_code == 200
    assert tenants.get(practice_id).status_code == 404
    assert tenants.put(practice_id).status_code == 409
    assert fleet.databases() == {}
    assert fleet.query("SELECT 1 FROM pg_roles WHERE rolname = %s", database) == []


def test_undoing_a_sign_up_that_never_asked_for_a_shard_forbids_it_for_good(tenants: Tenants) -> None:
    practice_id = new_id()
    assert tenants.delete(practice_id).status_code == 200
    assert tenants.put(practice_id).status_code == 409


def test_undoing_drops_the_database_whoever_is_connected(tenants: Tenants, fleet: Fleet) -> None:
    practice_id = new_id()
    database = tenants.put(practice_id).json()["database"]
    connection = fleet.log_in(database, database)
    assert tenants.delete(practice_id).status_code == 200
    assert fleet.databases() == {}
    connection.close()


def test_undoing_never_drops_a_patient(tenants: Tenants, fleet: Fleet) -> None:
    """Whatever made auth-service believe that the practice never became active."""
    practice_id = new_id()
    database = tenants.put(practice_id).json()["database"]
    fleet.store_patient(database)
    for _ in range(2):
        answer = tenants.delete(practice_id)
        assert (answer.status_code, answer.json()["state"]) == (200, "quarantined")
    assert fleet.databases() == {database: False}
    assert (tenants.get(practice_id).status_code, tenants.put(practice_id).status_code) == (503, 503)
    execute_at(fleet.postgres.dsn(), f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
    assert fleet.query("SELECT count(*) FROM patients", database=database) == [(1,)]


def test_fifty_parallel_practices_all_get_their_shard(
    tenants: Tenants, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody ever connects to the template, so no clone fails with SQLSTATE 55006."""
    monkeypatch.setattr(slots, "WAIT_FOR_SLOT_S", 60)  # a slow machine is no failure
    practices = [new_id() for _ in range(50)]
    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(tenants.put, practices))
    assert Counter(answer.status_code for answer in answers) == {201: 50}
    assert len({answer.json()["database"] for answer in answers}) == 50
    assert len(fleet.databases()) == 50


def test_parallel_calls_for_one_practice_make_one_database(tenants: Tenants, fleet: Fleet) -> None:
    practice_id = new_id()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: tenants.put(practice_id), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len(fleet.databases()) == 1


def test_making_and_undoing_at_once_ends_undone(tenants: Tenants, fleet: Fleet) -> None:
    practices = [new_id() for _ in range(6)]
    with ThreadPoolExecutor(12) as threads:
        puts = [threads.submit(tenants.put, practice) for practice in practices]
        deletes = [threads.submit(tenants.delete, practice) for practice in practices]
    assert {put.result().status_code for put in puts} <= {201, 409}
    assert {delete.result().status_code for delete in deletes} <= {200, 503}
    for practice_id in practices:  # as auth-service does until it is told 200
        wait_for(lambda practice_id=practice_id: tenants.delete(practice_id).status_code == 200)
    assert fleet.databases() == {}


def test_who_waits_too_long_for_a_slot_is_told_to_come_back(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "WAIT_FOR_SLOT_S", 0.2)
    hold, held = threading.Event(), threading.Semaphore(0)
    clone = shard_database.clone

    def held_clone(*arguments: object, **options: object) -> None:
        held.release()
        hold.wait(30)
        clone(*arguments, **options)

    monkeypatch.setattr(shard_database, "clone", held_clone)
    with serving(fleet) as tenants, ThreadPoolExecutor(2) as threads:
        wait_for(tenants.is_ready)
        busy = [threads.submit(tenants.put, new_id()) for _ in range(2)]
        for _ in busy:
            held.acquire()
        refused = tenants.put(new_id())
        assert tenants.get(new_id()).status_code == 404  # others are served meanwhile
        hold.set()
        assert [one.result().status_code for one in busy] == [201, 201]
    assert (refused.status_code, refused.json()["type"]) == (503, "/errors/provisioning-busy")
    assert refused.headers["retry-after"]


def test_undoing_slowly_lets_others_sign_up(tenants: Tenants, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drop waits for a checkpoint of the whole server."""
    hold, held = threading.Event(), threading.Event()
    drop = shard_database.drop

    def held_drop(*arguments: object) -> None:
        held.set()
        hold.wait(30)
        drop(*arguments)

    monkeypatch.setattr(shard_database, "drop", held_drop)
    practice_id = new_id()
    tenants.put(practice_id)
    with ThreadPoolExecutor(1) as threads:
        undoing = threads.submit(tenants.delete, practice_id)
        assert held.wait(30)
        assert tenants.get(practice_id).status_code == 404
        assert tenants.put(practice_id).status_code == 409
        assert tenants.put(new_id()).status_code == 201
        hold.set()
        assert undoing.result().status_code == 200


def test_connections_that_the_server_cut_are_replaced(tenants: Tenants, fleet: Fleet) -> None:
    assert tenants.put(new_id()).status_code == 201
    query_at(
        fleet.postgres.dsn(),
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gowebbo_tenant'",
    )
    assert tenants.put(new_id()).status_code == 201


@pytest.mark.parametrize("step", ["clone", "open_to_its_role"])
def test_a_server_that_fails_in_the_middle_is_tried_again(
    tenants: Tenants, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    deed = getattr(shard_database, step)

    def cut_off(session: AdminSession, *arguments: object, **options: object) -> None:
        monkeypatch.undo()
        deed(session, *arguments, **options)
        session.rows("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(shard_database, step, cut_off)
    practice_id = new_id()
    refused = tenants.put(practice_id)
    assert (refused.status_code, refused.json()["type"]) == (503, "/errors/shard-server-unavailable")
    assert tenants.get(practice_id).json()["type"] == "/errors/shard-not-ready"
    database = tenants.put(practice_id).json()["database"]
    assert fleet.databases() == {database: True}


def test_a_database_that_resists_is_dropped_later(tenants: Tenants, fleet: Fleet) -> None:
    """The admin role may not end a superuser's session."""
    practice_id = new_id()
    database = tenants.put(practice_id).json()["database"]
    with contextlib.closing(psycopg2.connect(fleet.postgres.dsn(database))):
        assert tenants.delete(practice_id).status_code == 503
        assert tenants.get(practice_id).status_code == 404
    fleet.sweep()
    assert fleet.databases() == {}


def test_a_template_that_was_left_half_made_is_made_anew(fleet: Fleet) -> None:
    postgres = fleet.postgres
    name = templates.template_name()
    execute_at(postgres.dsn(), f"ALTER DATABASE {name} IS_TEMPLATE false ALLOW_CONNECTIONS true")
    execute_at(postgres.dsn(name), "DROP TABLE patients")
    server = ServerAdmin(Access(postgres.host, postgres.port, "gowebbo_tenant", postgres.password))
    assert not templates.is_ready(server)
    templates.ensure_template(server)
    server.close()
    assert fleet.shard().database
    assert fleet.query("SELECT datistemplate, datallowconn FROM pg_database WHERE datname = %s", name) == [
        (True, False)
    ]


def test_a_missing_template_comes_back_by_itself(fleet: Fleet) -> None:
    name = templates.template_name()
    execute_at(fleet.postgres.dsn(), f"ALTER DATABASE {name} IS_TEMPLATE false")
    execute_at(fleet.postgres.dsn(), f"DROP DATABASE {name}")
    with serving(fleet) as tenants:
        wait_for(tenants.is_ready)
        assert tenants.put(new_id()).status_code == 201


def test_a_service_that_starts_before_its_database_is_made_recovers(fleet: Fleet) -> None:
    execute_at(fleet.postgres.dsn(), f'ALTER DATABASE "{fleet.database}" ALLOW_CONNECTIONS false')
    try:
        fleet.start_over()
        with serving(fleet) as tenants:
            missing = tenants.call("GET", "/readyz", caller=None)
            assert (missing.status_code, missing.json()["missing"]["central database"]) == (503, "not reachable")
            assert tenants.call("GET", "/livez", caller=None).status_code == 200
            for answer in (tenants.put(new_id()), tenants.get(new_id()), tenants.delete(new_id())):
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            execute_at(fleet.postgres.dsn(), f'ALTER DATABASE "{fleet.database}" ALLOW_CONNECTIONS true')
            wait_for(tenants.is_ready)
            assert tenants.put(new_id()).status_code == 201
    finally:
        execute_at(fleet.postgres.dsn(), f'ALTER DATABASE "{fleet.database}" ALLOW_CONNECTIONS true')


def test_a_service_whose_database_is_not_migrated_says_so(fleet: Fleet) -> None:
    execute_at(fleet.postgres.dsn(fleet.database), "UPDATE tenant.alembic_version SET version_num = '0000'")
    with serving(fleet) as tenants:
        answer = tenants.call("GET", "/readyz", caller=None)
    assert (answer.status_code, answer.json()["missing"]["central database"]) == (503, "not migrated")


@pytest.mark.parametrize(
    "caller", [Caller(), Caller(role="owner", practice_id=str(uuid.uuid4())), Caller(role="admin")]
)
def test_only_services_find_the_internal_routes(tenants: Tenants, caller: Caller) -> None:
    practice_id = new_id()
    for method, path in (
        ("PUT", f"/internal/shards/{practice_id}"),
        ("GET", f"/internal/shards/{practice_id}"),
        ("DELETE", f"/internal/shards/{practice_id}"),
        ("GET", "/internal/servers"),
        ("GET", "/internal/changes"),
    ):
        assert tenants.call(method, path, caller=caller).status_code == 404
        assert tenants.call(method, path, caller=None).status_code == 401
    assert tenants.get(practice_id).status_code == 404


def test_changes_are_told_in_order_and_start_over_after_a_restore(tenants: Tenants, fleet: Fleet) -> None:
    practices = [new_id() for _ in range(3)]
    for practice_id in practices:
        tenants.put(practice_id)
        tenants.delete(practice_id)
    whole = tenants.call("GET", "/internal/changes", caller=GATEWAY).json()
    assert [change["practice_id"] for change in whole["changes"]] == [str(one) for one in practices]
    assert {change["kind"] for change in whole["changes"]} == {"shard-released"}
    assert whole["last"] == whole["changes"][-1]["seq"]
    first = whole["changes"][0]["seq"]
    later = tenants.call("GET", f"/internal/changes?after={first}", caller=GATEWAY).json()
    assert later == {"changes": whole["changes"][1:], "last": whole["last"]}
    assert tenants.call("GET", f"/internal/changes?after={whole['last']}", caller=GATEWAY).json()["changes"] == []
    ahead = tenants.call("GET", f"/internal/changes?after={whole['last'] + 5}", caller=GATEWAY).json()
    assert ahead == whole | {"reset": True}


def test_old_changes_are_forgotten_but_their_number_is_not(fleet: Fleet) -> None:
    for _ in range(3):
        shard = fleet.shard()
        fleet.provisioning.release(shard.practice_id)
    execute_at(fleet.postgres.dsn(fleet.database), "UPDATE tenant.changes SET at = now() - interval '2 days'")
    fleet.sweep()
    assert fleet.query("SELECT count(*) FROM tenant.changes") == [(1,)]
    with serving(fleet) as tenants:
        answer = tenants.call("GET", "/internal/changes?after=3", caller=AUTH).json()
    assert answer == {"changes": [], "last": 3}


def test_stopping_lets_a_running_clone_end(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    started = threading.Event()
    clone = shard_database.clone

    def slow_clone(*arguments: object, **options: object) -> None:
        started.set()
        time.sleep(0.3)
        clone(*arguments, **options)

    monkeypatch.setattr(shard_database, "clone", slow_clone)
    with ThreadPoolExecutor(1) as threads:
        with serving(fleet) as tenants:
            wait_for(tenants.is_ready)
            answer = threads.submit(tenants.put, new_id())
            assert started.wait(30)
        assert answer.result().status_code == 201
