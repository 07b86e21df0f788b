"""A practice moves between real servers, 18 and 15: nothing is lost, whatever fails, and it is never in two places."""

import contextlib
import json
import random
import signal
import threading
import uuid
from collections.abc import Iterator
from typing import Any, Self

import psycopg2
import pytest
from migration_stand import NoProgress
from psycopg2 import sql
from tenant_stand import ADMIN, Tenants, execute_at, interrupted, query_at, serving, wait_for
from two_servers import TwoServers, on_two_servers, unknown_practice

from gowebbo_stack.testing import PostgresServer
from tenant_service import shard_copy, shard_database
from tenant_service.exceptions import DeedPostponedError, DeedRefusedError
from tenant_service.moving import MOVED, ROLLED_BACK, Moving
from tenant_service.storage.directory import Shard

STEPS = [
    ("storage.moves.begin_move", "after"),
    ("shard_database.clone", "after"),
    ("shard_copy.copy_all", "before"),
    ("shard_copy.copy_all", "after"),
    ("shard_copy.copy_younger", "after"),
    ("shard_database.fence", "before"),
    ("shard_database.fence", "after"),
    ("moving._prove_equal", "before"),
    ("moving._prove_equal", "after"),
    ("shard_copy.counts", "before"),
    ("shard_database.open_to_its_role", "before"),
    ("shard_database.open_to_its_role", "after"),
    ("storage.directory.move_shard", "after"),
    ("moving.Moving._switch", "after"),
    ("moving.Moving._leave_copy", "after"),
]
"""The last two are behind the switch."""


@pytest.fixture
def both(postgres: PostgresServer, postgres15: PostgresServer) -> Iterator[TwoServers]:
    with on_two_servers(postgres, postgres15) as servers:
        yield servers


@pytest.fixture
def mover(both: TwoServers) -> Moving:
    moving: Moving = both.fleet.app.state.moving
    return moving


def assert_whole(both: TwoServers, shard: Shard, *, on: str, rows: list[Any]) -> None:
    """The practice is there and only there, with all its rows, may be used, and can write."""
    database = str(shard.database)
    assert both.place(shard.practice_id) == (on, database)
    assert both.rows(on, database) == rows
    other = "b" if on == "a" else "a"
    assert both.stamps(on)[database] == str(shard.practice_id)
    assert both.stamps(other).get(database, "") in {"", f"copy:{shard.practice_id}"}
    with contextlib.closing(both.log_in(shard)) as session, session, session.cursor() as cursor:
        cursor.execute("UPDATE patients SET age = age")
        assert cursor.rowcount == len(rows)
    with pytest.raises(psycopg2.OperationalError):
        both.log_in(shard, key=other)
    [(fence,)] = both.fleet.query("SELECT fence FROM tenant.shards WHERE practice_id = %s", str(shard.practice_id))
    assert fence is None


@pytest.mark.parametrize(("origin", "to"), [("a", "b"), ("b", "a")])
def test_all_rows_go_and_the_former_place_is_kept_as_a_copy(
    both: TwoServers, mover: Moving, origin: str, to: str
) -> None:
    shard, neighbour = both.shard_on(origin, patients=300), both.shard_on(origin, patients=3)
    both.execute(shard, "INSERT INTO patients VALUES (gen_random_uuid(), E'a\\tb\\n\\\\N ÄÖ 你', '+1', 0)")
    both.execute(shard, "UPDATE patients SET is_deleted = 1 WHERE age = 0")
    rows = both.rows(origin, str(shard.database))
    outcome = mover.move(shard.practice_id, to, NoProgress())
    assert (outcome.result, outcome.rows) == (MOVED, 301)
    assert_whole(both, shard, on=to, rows=rows)
    assert_whole(both, neighbour, on=origin, rows=both.rows(origin, str(neighbour.database)))
    assert both.rows(origin, str(shard.database)) == rows
    assert both.fleet.query("SELECT server, database, origin, state FROM tenant.copies") == [
        (origin, shard.database, "moved", "ready")
    ]
    report = both.fleet.app.state.isolation.of_practice(shard.practice_id)
    assert all(check.ok for check in report.checks), report
    both.fleet.sweep()
    assert shard.database in both.databases(origin)


def test_there_and_back_again(both: TwoServers, mover: Moving) -> None:
    shard = both.shard_on("a", patients=10)
    for to in "baba":
        rows = both.rows(both.place(shard.practice_id)[0], str(shard.database))
        assert mover.move(shard.practice_id, to, NoProgress()).result == MOVED
        assert_whole(both, shard, on=to, rows=rows)
        both.add_patients(shard, 1)


def test_a_copy_goes_when_its_time_is_over(both: TwoServers, mover: Moving) -> None:
    shard = both.shard_on("a", patients=1)
    mover.move(shard.practice_id, "b", NoProgress())
    both.fleet.change("UPDATE tenant.copies SET expires_at = now() - interval '1 s'")
    both.fleet.sweep()
    assert shard.database not in both.databases("a")
    assert both.fleet.query("SELECT * FROM tenant.copies") == []
    assert query_at(both.servers["a"].dsn(), "SELECT 1 FROM pg_roles WHERE rolname = %s", shard.database) == []
    assert_whole(both, shard, on="b", rows=both.rows("b", str(shard.database)))


class Writer:
    """A practice at work: writes as its role, wherever the directory says; remembers what was committed."""

    def __init__(self, both: TwoServers, shard: Shard) -> None:
        self._both = both
        self._shard = shard
        self.committed: dict[str, int] = {}
        self.refused = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_for(lambda: len(self.committed) > 20)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        dice = random.Random(7)
        while not self._over.is_set():
            with contextlib.suppress(psycopg2.Error), contextlib.closing(self._both.log_in(self._shard)) as session:
                self._write(session, dice)
            self.refused += 1

    def _write(self, session: Any, dice: random.Random) -> None:
        while not self._over.is_set():
            known = list(self.committed)
            patient = dice.choice(known) if known and dice.random() < 0.5 else str(uuid.uuid4())
            age = dice.randint(0, 150)
            with session.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO patients (id, name, mobile, age) VALUES (%s, 'A', '12345', %s)"
                    " ON CONFLICT (id) DO UPDATE SET age = EXCLUDED.age",
                    (patient, age),
                )
                session.commit()
            self.committed[patient] = age


@pytest.mark.parametrize("patients", [0, 20_000])
def test_under_load_no_committed_write_is_lost(both: TwoServers, mover: Moving, patients: int) -> None:
    shard = both.shard_on("a", patients=patients)
    with Writer(both, shard) as writer:
        for to in "bab":
            assert mover.move(shard.practice_id, to, NoProgress()).result == MOVED
            before = len(writer.committed)
            wait_for(lambda before=before: len(writer.committed) > before + 20)
    found = {row[0]: row[1] for row in both.query(shard, "SELECT id::text, age FROM patients")}
    # of a write whose answer was cut off nobody knows; each cut can be at most one
    wrong = [patient for patient, age in writer.committed.items() if found.get(patient) != age]
    assert len(wrong) <= writer.refused
    assert set(writer.committed) <= set(found)
    assert writer.refused >= 3


@pytest.mark.parametrize(("step", "when"), STEPS)
def test_killed_at_any_step_it_is_whole_again_and_arrives(
    both: TwoServers, mover: Moving, step: str, when: str
) -> None:
    shard = both.shard_on("a", patients=50)
    rows = both.rows("a", str(shard.database))
    assert interrupted(both.fleet, "move", shard.practice_id, step, when) == -signal.SIGKILL
    has_switched = step.startswith("moving.Moving")
    assert both.place(shard.practice_id)[0] == ("b" if has_switched else "a")
    outcome = mover.move(shard.practice_id, "b", NoProgress())
    assert (outcome.result, outcome.rows) == (MOVED, 50)
    assert_whole(both, shard, on="b", rows=rows)
    both.fleet.sweep()
    assert both.databases("a") == both.databases("b") == {shard.database}


def test_killed_at_random_moments_nothing_is_lost(both: TwoServers, mover: Moving) -> None:
    shard = both.shard_on("a", patients=500)
    rows = both.rows("a", str(shard.database))
    for _ in range(6):
        interrupted(both.fleet, "move", shard.practice_id, str(random.uniform(0, 400)))
        if both.place(shard.practice_id)[0] == "b":
            break
    wait_for(lambda: mover.move(shard.practice_id, "b", NoProgress()).result == MOVED)
    assert_whole(both, shard, on="b", rows=rows)


@pytest.mark.parametrize("step", ["copy_all", "copy_younger", "digests", "counts"])
def test_a_fault_rolls_back_and_the_practice_goes_on(
    both: TwoServers, mover: Moving, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    shard = both.shard_on("a", patients=20)
    rows = both.rows("a", str(shard.database))
    original = getattr(shard_copy, step)

    def broken(*arguments: Any, **options: Any) -> Any:
        original(*arguments, **options)
        raise psycopg2.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(shard_copy, step, broken)
    outcome = mover.move(shard.practice_id, "b", NoProgress())
    assert (outcome.result, outcome.reason) == (ROLLED_BACK, "server closed the connection unexpectedly")
    assert_whole(both, shard, on="a", rows=rows)
    assert both.databases("b") == set()
    assert both.fleet.query("SELECT phase FROM tenant.moves") == [("rolled-back",)]


def test_rows_that_differ_are_never_switched_to(
    both: TwoServers, mover: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = both.shard_on("a", patients=20)
    rows = both.rows("a", str(shard.database))
    original = shard_copy.copy_all

    def lossy(source: Any, target: Any) -> None:
        original(source, target)
        execute_at(both.dsn("b", str(shard.database)), "UPDATE patients SET age = 4 WHERE ctid = '(0,1)'")

    monkeypatch.setattr(shard_copy, "copy_all", lossy)
    outcome = mover.move(shard.practice_id, "b", NoProgress())
    assert (outcome.result, outcome.reason) == (ROLLED_BACK, "Both places don't hold the same rows.")
    assert_whole(both, shard, on="a", rows=rows)


def test_a_row_that_goes_wrong_behind_the_fence_is_never_switched_to(
    both: TwoServers, mover: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = both.shard_on("a", patients=20)
    original = shard_copy._taking_over

    def lossy(table: Any, staged: Any) -> Any:
        return original(table, staged) + sql.SQL("; UPDATE patients SET age = 77 WHERE name = 'late'")

    fence = shard_database.fence

    def late(session: Any, database: str) -> None:
        both.execute(shard, "UPDATE patients SET name = 'late' WHERE ctid = '(0,1)'")
        monkeypatch.setattr(shard_copy, "_taking_over", lossy)
        fence(session, database)

    monkeypatch.setattr(shard_database, "fence", late)
    outcome = mover.move(shard.practice_id, "b", NoProgress())
    assert (outcome.result, outcome.reason) == (ROLLED_BACK, "Both places don't hold the same rows.")
    assert_whole(both, shard, on="a", rows=both.rows("a", str(shard.database)))


def test_a_session_that_stays_breaks_the_move_not_the_practice(
    both: TwoServers, mover: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = both.shard_on("a", patients=2)
    monkeypatch.setattr(shard_database, "is_quiet", lambda *_: False)
    outcome = mover.move(shard.practice_id, "b", NoProgress())
    assert (outcome.result, outcome.reason) == (ROLLED_BACK, "Somebody connected through the fence.")
    assert_whole(both, shard, on="a", rows=both.rows("a", str(shard.database)))


def test_what_nobody_foresaw_is_rolled_back_too(
    both: TwoServers, mover: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = both.shard_on("a", patients=2)
    monkeypatch.setattr(shard_database, "is_quiet", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mover.move(shard.practice_id, "b", NoProgress())
    assert_whole(both, shard, on="a", rows=both.rows("a", str(shard.database)))
    assert both.databases("b") == set()


def test_while_not_even_the_roll_back_is_possible_the_job_waits(
    both: TwoServers, mover: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = both.shard_on("a", patients=2)

    def broken(*_: Any, **__: Any) -> Any:
        raise psycopg2.OperationalError("gone")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(shard_database, "open_to_its_role", broken)
        meanwhile.setattr(shard_database, "lift_fence", broken)
        with pytest.raises(DeedPostponedError):
            mover.move(shard.practice_id, "b", NoProgress())
    assert mover.move(shard.practice_id, "b", NoProgress()).result == MOVED
    assert_whole(both, shard, on="b", rows=both.rows("b", str(shard.database)))


def test_a_directory_restored_to_before_the_switch_drops_nothing(both: TwoServers, mover: Moving) -> None:
    """It tells of a move that is under way; on the servers it is over, and the practice wrote at its new place."""
    shard = both.shard_on("a", patients=2)
    mover.move(shard.practice_id, "b", NoProgress())
    both.add_patients(shard, 5)
    both.fleet.change("UPDATE tenant.moves SET phase = 'fenced'")
    both.fleet.change("UPDATE tenant.shards SET server = 'a', fence = 'moving'")
    both.fleet.change("DELETE FROM tenant.copies")
    with pytest.raises(DeedRefusedError, match="no longer has the practice's shard"):
        mover.move(shard.practice_id, "b", NoProgress())
    assert len(both.rows("b", str(shard.database))) == 7


def test_another_database_of_the_name_is_left_alone(both: TwoServers, mover: Moving) -> None:
    shard = both.shard_on("a", patients=2)
    execute_at(both.servers["b"].dsn(), f'CREATE DATABASE "{shard.database}"')
    try:
        outcome = mover.move(shard.practice_id, "b", NoProgress())
        assert outcome.result == ROLLED_BACK
        assert "has another database of the name" in str(outcome.reason)
        assert_whole(both, shard, on="a", rows=both.rows("a", str(shard.database)))
    finally:
        execute_at(both.servers["b"].dsn(), f'DROP DATABASE "{shard.database}"')


# Asked for by the admin


def order(tenants: Tenants, practice_id: object, to: str) -> Any:
    return tenants.call("POST", f"/api/v1/admin/practices/{practice_id}/move", caller=ADMIN, json={"to": to})


def result_of(tenants: Tenants, answer: Any) -> Any:
    assert answer.status_code == 202, answer.text
    path = answer.headers["location"]

    def over() -> Any:
        job = tenants.call("GET", path, caller=ADMIN).json()["result"]
        return job["state"] in {"done", "failed"} and job

    return wait_for(over)


def test_the_admin_has_a_practice_moved(both: TwoServers) -> None:
    shard = both.shard_on("a", patients=7)
    with serving(both.fleet) as tenants:
        wait_for(tenants.is_ready)
        job = result_of(tenants, order(tenants, shard.practice_id, "b"))
        assert job["state"] == "done", job
        fence_ms = job["result"].pop("fence_ms")
        assert fence_ms > 0
        assert job["result"] == {
            "practice": str(shard.practice_id),
            "from": "a",
            "to": "b",
            "rows": 7,
            "result": "moved",
            "reason": None,
        }
        changes = tenants.call("GET", "/internal/changes?after=0").json()["changes"]
        kinds = [change["kind"] for change in changes if change["practice_id"] == str(shard.practice_id)]
        assert kinds == ["shard-fenced", "shard-moved"]
        assert tenants.get(shard.practice_id).json()["shard"] == f"b/{shard.database}"


def test_what_cannot_be_is_refused_at_once(both: TwoServers) -> None:
    shard, old = both.shard_on("a"), both.shard_on("a")
    both.fleet.change("UPDATE tenant.shards SET revision = '0001' WHERE practice_id = %s", str(old.practice_id))
    with serving(both.fleet) as tenants:
        wait_for(tenants.is_ready)
        same, unknown, nobody, behind = (
            order(tenants, shard.practice_id, "a"),
            order(tenants, shard.practice_id, "x"),
            order(tenants, unknown_practice(), "b"),
            order(tenants, old.practice_id, "b"),
        )
        assert (same.status_code, same.json()["detail"]) == (409, "The practice is on server a.")
        assert (unknown.status_code, unknown.json()["type"]) == (404, "/errors/server-unknown")
        assert (nobody.status_code, nobody.json()["type"]) == (404, "/errors/shard-unknown")
        assert behind.status_code == 409
        assert "migrate it" in behind.json()["detail"]
        both.fleet.change("UPDATE tenant.servers SET state = 'draining' WHERE key = 'b'")
        draining = order(tenants, shard.practice_id, "b")
        assert (draining.status_code, draining.json()["detail"]) == (409, "Server b is draining.")
        assert order(tenants, shard.practice_id, "B!").status_code == 422


def test_a_drained_server_is_emptied_and_then_there_is_nothing_to_do(both: TwoServers) -> None:
    shards = [both.shard_on("a", patients=count) for count in range(4)]
    with serving(both.fleet) as tenants:
        wait_for(tenants.is_ready)
        path = "/api/v1/admin/servers/a/evacuate"
        assert tenants.call("POST", path, caller=ADMIN).status_code == 409  # it isn't drained
        tenants.call("POST", "/api/v1/admin/servers/a/drain", caller=ADMIN)
        job = result_of(tenants, tenants.call("POST", path, caller=ADMIN))
        assert sorted(one["rows"] for one in job["result"]["moves"]) == [0, 1, 2, 3]
        assert {one["result"] for one in job["result"]["moves"]} == {"moved"}
        again = result_of(tenants, tenants.call("POST", path, caller=ADMIN))
        assert again["result"] == {"server": "a", "moves": []}
        assert tenants.call("DELETE", "/api/v1/admin/servers/a", caller=ADMIN).status_code == 409
    for count, shard in enumerate(shards):
        assert both.place(shard.practice_id)[0] == "b"
        assert len(both.patients(shard)) == count


@pytest.mark.parametrize("step", ["moving.Moving._switch", "shard_copy.copy_all"])
def test_a_killed_drain_goes_on_with_what_is_left(both: TwoServers, step: str) -> None:
    shards = [both.shard_on("a", patients=count) for count in range(3)]
    both.fleet.change("UPDATE tenant.servers SET state = 'draining' WHERE key = 'a'")
    order = {"kind": "evacuate-server", "server": "a", "job_id": str(uuid.uuid4())}
    assert interrupted(both.fleet, json.dumps(order), "-", step, "after") == -signal.SIGKILL
    progress = NoProgress()
    both.fleet.app.state.deeds["evacuate-server"]({"server": "a"}, progress)
    stamps = both.stamps("a")
    assert all(stamps[str(shard.database)] == f"copy:{shard.practice_id}" for shard in shards)
    left = 2 if step.endswith("_switch") else 3
    assert progress.noted[-1] == (left, left)
    for count, shard in enumerate(shards):
        assert both.place(shard.practice_id)[0] == "b"
        assert len(both.patients(shard)) == count
        both.log_in(shard).close()


def test_without_another_server_the_practices_stay(both: TwoServers) -> None:
    shard = both.shard_on("a", patients=1)
    both.fleet.change("UPDATE tenant.servers SET state = 'draining'")
    with serving(both.fleet) as tenants:
        wait_for(lambda: both.fleet.servers.usable == {"a", "b"})
        job = result_of(tenants, tenants.call("POST", "/api/v1/admin/servers/a/evacuate", caller=ADMIN))
        [left] = job["result"]["moves"]
        assert (left["result"], left["to"]) == ("rolled-back", None)
    assert_whole(both, shard, on="a", rows=both.rows("a", str(shard.database)))
