"""One question to every shard: none can write, none sees another's rows, who didn't answer is told, all is noted."""

import time
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from migration_stand import HEAD, NoProgress, put_back, table_locked
from tenant_stand import ADMIN, Fleet, Tenants, execute_at, serving, wait_for
from two_servers import TwoServers, on_two_servers

from gowebbo_stack.testing import PostgresServer
from shared.context import Caller
from tenant_service import fleet_query, single_query
from tenant_service.exceptions import DeedRefusedError
from tenant_service.single_query import QueryRefusedError
from tenant_service.storage.directory import Shard

FAR_ADMIN = Caller(role="admin", client_address="192.0.2.7")
COUNT = "select count(*) from patients"


def ask(fleet: Fleet, query: str = COUNT, *, deadline_s: float = 30) -> dict[str, Any]:
    result: dict[str, Any] = fleet.app.state.deeds["fleet-query"](
        {"query": query, "deadline_s": deadline_s}, NoProgress()
    )
    return result


def error_of(result: dict[str, Any], shard: Shard) -> str:
    [row] = [row for row in result["manifest"] if row["practice_id"] == str(shard.practice_id)]
    return str(row["error"])


@pytest.fixture
def shards(fleet: Fleet) -> list[Shard]:
    """Three, with 0, 1 and 2 patients, in the order of their practices."""
    made = sorted((fleet.shard() for _ in range(3)), key=lambda shard: shard.practice_id)
    for count, shard in enumerate(made):
        for _ in range(count):
            fleet.store_patient(str(shard.database))
    return made


@pytest.mark.parametrize(
    "query",
    [
        "select 1; select 2",
        "select 1; commit; drop table patients",
        "",
        "-- nothing",
        "selec 1",
        "delete from patients",
        "update patients set age = 1",
        "insert into patients select * from patients",
        "with gone as (delete from patients returning *) select * from gone",
        "with a as (select 1), b as (update patients set age = 1 returning 1) select * from a, b",
        "select * into more from patients",
        "select * from patients for update",
        "select * from (select * from patients for share) p",
        "copy patients to stdout",
        "copy patients to program 'id'",
        "do $$ begin end $$",
        "set role gowebbo_tenant",
        "reset role",
        "begin",
        "explain analyze delete from patients",
        "truncate patients",
        "call x()",
        "prepare x as select 1",
        "listen x",
        "vacuum",
        "merge into patients p using patients q on p.id = q.id when matched then delete",
    ],
)
def test_what_is_not_one_reading_statement_is_asked_of_nobody(query: str) -> None:
    with pytest.raises(QueryRefusedError):
        single_query.check(query)


@pytest.mark.parametrize(
    "query",
    [
        COUNT,
        "select 1;",
        "values (1), (2)",
        "with p as (select * from patients) select max(age) from p",
        "table patients",
    ],
)
def test_one_reading_statement_may_be_asked(query: str) -> None:
    single_query.check(query)


def test_every_practice_answers_with_its_own_rows(fleet: Fleet, shards: list[Shard]) -> None:
    found = ask(fleet)
    ids = [str(shard.practice_id) for shard in shards]
    assert found["rows"] == [{"practice_id": practice, "count": count} for count, practice in enumerate(ids)]
    assert (found["answered"], found["failed"], found["truncated"]) == (ids, [], False)
    assert [row["revision"] for row in found["manifest"]] == [HEAD] * 3
    who = ask(fleet, "select current_user::text, session_user::text, current_database()::text, 100 % 7 as rest")
    assert who["rows"] == [
        {
            "practice_id": str(shard.practice_id),
            "current_user": shard.database,
            "session_user": shard.database,
            "current_database": shard.database,
            "rest": 2,
        }
        for shard in shards
    ]


@pytest.mark.parametrize(
    "query",
    [
        "select set_config('transaction_read_only', 'off', true)",
        "select set_config('role', 'gowebbo_tenant', false)",
        "select set_config('session_authorization', 'postgres', false)",
        "select pg_read_file('/etc/passwd')",
        "select lo_export(1, '/tmp/x')",
        "select lo_create(0)",
        "select pg_ls_dir('.')",
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'postgres'",
        "select pg_reload_conf()",
        "select query_to_xml('delete from patients', true, false, '')",
        "select query_to_xml('update patients set age = 99', true, false, '')",
        "select * from pg_authid",
        "select pg_sleep(60)",
    ],
)
def test_functions_that_do_more_than_read_are_refused(fleet: Fleet, shards: list[Shard], query: str) -> None:
    """Whatever the grammar lets through, the session's role and transaction do not."""
    before = fleet.query("SELECT p::text FROM patients p", database=shards[2].database)
    found = ask(fleet, query, deadline_s=3)
    assert found["rows"] == [], found["rows"]
    assert len(found["failed"]) == 3
    assert fleet.query("SELECT p::text FROM patients p", database=shards[2].database) == before


def test_who_cannot_answer_has_failed_and_the_others_have_not(fleet: Fleet, shards: list[Shard]) -> None:
    fenced, gone, other = shards
    fleet.change("UPDATE tenant.shards SET fence = 'drifted' WHERE database = %s", fenced.database)
    execute_at(fleet.postgres.dsn(), f'DROP DATABASE "{gone.database}" WITH (FORCE)')
    found = ask(fleet)
    assert found["answered"] == [str(other.practice_id)]
    assert found["failed"] == [str(fenced.practice_id), str(gone.practice_id)]
    assert error_of(found, fenced) == "It is fenced: drifted."
    assert "does not exist" in error_of(found, gone)


def test_a_locked_and_a_slow_shard_fail_alone(fleet: Fleet, shards: list[Shard]) -> None:
    locked, slow, other = shards
    execute_at(
        fleet.postgres.dsn(slow.database),
        "CREATE VIEW lately AS SELECT pg_sleep(30)::text AS one; GRANT SELECT ON lately TO shard_rw",
    )
    for shard in (locked, other):
        execute_at(
            fleet.postgres.dsn(shard.database),
            "CREATE VIEW lately AS SELECT 1 AS one; GRANT SELECT ON lately TO shard_rw",
        )
    with table_locked(fleet, locked, "ACCESS EXCLUSIVE"):
        began = time.monotonic()
        found = ask(fleet, "select (select count(*) from patients), one from lately", deadline_s=4)
        assert time.monotonic() - began < 30
    assert found["answered"] == [str(other.practice_id)]
    assert "lock timeout" in error_of(found, locked)
    assert "statement timeout" in error_of(found, slow)


def test_another_practices_stamp_is_no_answer(fleet: Fleet, shards: list[Shard]) -> None:
    wrong = shards[1]
    execute_at(fleet.postgres.dsn(), f"ALTER DATABASE \"{wrong.database}\" SET gowebbo.practice_id = 'somebody'")
    found = ask(fleet)
    assert found["failed"] == [str(wrong.practice_id)]
    assert error_of(found, wrong) == "Its database bears another stamp."


def test_much_is_cut_off_and_told(fleet: Fleet, shards: list[Shard], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_query, "MOST_ROWS_EACH", 3)
    long = "repeat('x', 2000) as long"
    found = ask(fleet, f"select generate_series(1, 4) as n, {long}, null as none, 1.5::numeric as exact")
    assert len(found["rows"]) == 9
    assert found["truncated"] is True
    first = found["rows"][0]
    assert (first["n"], first["none"], first["exact"], len(first["long"])) == (1, None, "1.5", 1001)
    monkeypatch.setattr(fleet_query, "MOST_ROWS", 2)
    assert len(ask(fleet, "select 1 as one")["rows"]) == 2


def test_former_revisions_answer_too_and_say_so(fleet: Fleet, shards: list[Shard]) -> None:
    put_back(fleet, shards[0])
    found = ask(fleet)
    assert found["failed"] == []
    assert len({row["revision"] for row in found["manifest"]}) == 2


def test_a_question_to_two_servers_outlives_the_loss_of_one(both: TwoServers, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = both.shard_on("a", patients=1), both.shard_on("b", patients=2)
    assert [row["count"] for row in ask(both.fleet)["rows"]] == [1, 2]
    original = fleet_query.FleetQuery._connect

    def lost(self: Any, place: Any, *arguments: Any) -> Any:
        if place.port == both.servers["b"].port:
            raise psycopg2.OperationalError("connection refused")
        return original(self, place, *arguments)

    monkeypatch.setattr(fleet_query.FleetQuery, "_connect", lost)
    found = ask(both.fleet)
    assert (found["answered"], found["failed"]) == ([str(here.practice_id)], [str(there.practice_id)])


@pytest.fixture
def both(postgres: PostgresServer, postgres15: PostgresServer) -> Iterator[TwoServers]:
    with on_two_servers(postgres, postgres15) as servers:
        yield servers


# Asked for by the admin


def asked(tenants: Tenants, **order: Any) -> Any:
    return tenants.call("POST", "/api/v1/admin/fleet/query", caller=ADMIN, json=order)


def record(tenants: Tenants, query: str = "") -> list[dict[str, Any]]:
    answer = tenants.call("GET", f"/api/v1/admin/operations{query}", caller=ADMIN)
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["result"]["data"]
    return data


def test_the_question_and_its_end_are_on_record(fleet: Fleet, shards: list[Shard]) -> None:
    with serving(fleet) as tenants:
        wait_for(tenants.is_ready)
        answer = tenants.call("POST", "/api/v1/admin/fleet/query", caller=FAR_ADMIN, json={"query": COUNT})
        assert answer.status_code == 202, answer.text
        job_id = answer.json()["result"]["id"]
        path = answer.headers["location"]
        done = wait_for(
            lambda: (job := tenants.call("GET", path, caller=ADMIN).json()["result"])["state"] == "done" and job
        )
        assert set(done["result"]) == {"rows", "answered", "failed", "manifest", "truncated", "deadline_s"}
        assert len(done["result"]["answered"]) == len(shards)
        ended, begun = wait_for(lambda: len(found := record(tenants)) == 2 and found)
        assert (begun["action"], begun["target"], begun["detail"]) == (
            "job.asked",
            job_id,
            {"kind": "fleet-query", "query": COUNT, "deadline_s": 30.0},
        )
        assert (ended["action"], ended["outcome"], ended["target"]) == ("job.ended", "success", job_id)
        assert (begun["address"], ended["address"]) == ("192.0.2.7", "")
        assert begun["request_id"]
        again = asked(tenants, query="selec")
        assert (again.status_code, again.json()["errors"][0]["field"]) == (422, "query")
        assert len(record(tenants)) == 2


def test_nobody_but_the_admin_asks_or_reads_the_record(fleet: Fleet) -> None:
    with serving(fleet) as tenants:
        wait_for(tenants.is_ready)
        for caller in (None, Caller(role="owner", practice_id="x")):
            for method, path in (("POST", "/api/v1/admin/fleet/query"), ("GET", "/api/v1/admin/operations")):
                refused = tenants.call(method, path, caller=caller, json={"query": COUNT})
                assert refused.status_code in {401, 403}


def test_the_record_tells_of_servers_page_by_page_and_cannot_be_changed(fleet: Fleet) -> None:
    with serving(fleet) as tenants:
        wait_for(tenants.is_ready)
        for deed in ("drain", "open", "drain"):
            tenants.call("POST", f"/api/v1/admin/servers/a/{deed}", caller=ADMIN)
        assert [entry["action"] for entry in record(tenants)] == ["server.drained", "server.opened", "server.drained"]
        first = tenants.call("GET", "/api/v1/admin/operations?limit=2", caller=ADMIN)
        assert len(first.json()["result"]["data"]) == 2
        [rest] = record(tenants, f"?limit=2&cursor={first.json()['result']['next_cursor']}")
        assert (rest["action"], rest["target"]) == ("server.drained", "a")
        assert tenants.call("GET", "/api/v1/admin/operations?cursor=x", caller=ADMIN).status_code == 400
        assert record(tenants, "?practice_id=01920000-0000-7000-8000-000000000000") == []
    for deed in (
        "UPDATE tenant.operations SET target = 'x'",
        "DELETE FROM tenant.operations",
        "TRUNCATE tenant.operations",
    ):
        with pytest.raises(psycopg2.errors.RaiseException, match="append-only"):
            fleet.change(deed)


def test_a_refused_question_has_a_reason(fleet: Fleet) -> None:
    with pytest.raises(DeedRefusedError, match="one statement"):
        ask(fleet, "select 1; select 2")
