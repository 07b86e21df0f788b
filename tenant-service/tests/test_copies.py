"""A copy beside the live shard: compared, put in its place and back, single patients taken from it."""

import contextlib
import json
import signal
import uuid
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
from migration_stand import FORMER, NoProgress, put_back
from tenant_stand import ADMIN, Fleet, execute_at, interrupted, serving, wait_for

from tenant_service import shard_database
from tenant_service.exceptions import CopyUnknownError, DeedPostponedError, DeedRefusedError
from tenant_service.storage.directory import Shard

SWAPPING = [
    ("storage.copies.note_swap", "after"),
    ("storage.directory.set_fence", "after"),
    ("shard_database.fence", "before"),
    ("shard_database.fence", "after"),
    ("shard_database.exchange", "before"),
    ("shard_database.exchange", "after"),
    ("storage.copies.insert_copy", "after"),
    ("storage.directory.lift_fence", "after"),
]


class Beside:
    """A practice with patients, a copy of them, and what changed since."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self.shard: Shard = fleet.shard()
        self.live = str(self.shard.database)
        self.kept, self.changed, self.lost, self.deleted = (self.add(name) for name in "abcd")
        backup = self.do("backup-practice", to=str(folder))
        self.copy = fleet.app.state.deeds["restore-backup"]({"path": backup["path"]}, NoProgress())["database"]
        self.then = self.rows(self.live)
        self.change("UPDATE patients SET name = 'Other', version = 7 WHERE id = %s", self.changed)
        self.change("UPDATE patients SET is_deleted = 1 WHERE id = %s", self.deleted)
        self.change("DELETE FROM patients WHERE id = %s", self.lost)
        self.added = self.add("e")
        self.now = self.rows(self.live)

    def do(self, kind: str, **arguments: Any) -> dict[str, Any]:
        order = {"practice_id": str(self.shard.practice_id), **arguments}
        result: dict[str, Any] = self.fleet.app.state.deeds[kind](order, NoProgress())
        return result

    def swap(self) -> dict[str, Any]:
        return self.do("swap-copy", database=self.copy)

    def add(self, name: str) -> str:
        patient = str(uuid.uuid4())
        self.change("INSERT INTO patients (id, name, mobile, age) VALUES (%s, %s, '12345', 3)", patient, name)
        return patient

    def change(self, statement: str, *parameters: Any) -> None:
        execute_at(self.fleet.postgres.dsn(self.live), statement, *parameters)

    def rows(self, database: str) -> list[tuple[Any, ...]]:
        return self.fleet.query("SELECT p::text FROM patients p ORDER BY id", database=database)

    def assert_swapped(self, *, times: int) -> None:
        """Both hold what they should, the live one alone is the practice's, and the practice works."""
        live, copy = (self.then, self.now) if times % 2 else (self.now, self.then)
        assert (self.rows(self.live), self.rows(self.copy)) == (live, copy)
        assert self.fleet.stamp_of(self.live) == str(self.shard.practice_id)
        assert self.fleet.stamp_of(self.copy) == f"copy:{self.shard.practice_id}"
        with contextlib.closing(self.fleet.log_in(self.live, self.live)) as session, session.cursor() as cursor:
            cursor.execute("UPDATE patients SET age = age")
            session.rollback()
        for role in (self.live, self.copy):
            with pytest.raises(psycopg2.OperationalError):
                self.fleet.log_in(role, self.copy)
        rows = self.fleet.query("SELECT server, database, state, fence FROM tenant.shards")
        assert rows == [("a", self.live, "ready", None)]
        assert self.fleet.query("SELECT database, state, swap_oid FROM tenant.copies") == [(self.copy, "ready", None)]
        report = self.fleet.app.state.isolation.of_practice(self.shard.practice_id)
        assert all(check.ok for check in report.checks), report


@pytest.fixture
def beside(fleet: Fleet, tmp_path: Path) -> Beside:
    return Beside(fleet, tmp_path)


def test_a_comparison_tells_what_changed_since(beside: Beside) -> None:
    found = beside.do("diff-copy", database=beside.copy)
    assert found == {
        "added": [beside.added],
        "removed": [beside.lost],
        "changed": sorted([beside.changed, beside.deleted]),
        "truncated": False,
    }


def test_a_comparison_of_thousands_is_complete(beside: Beside) -> None:
    beside.change(
        "INSERT INTO patients (id, name, mobile, age) SELECT gen_random_uuid(), 'n', '12345', 1"
        " FROM generate_series(1, 12000)"
    )
    found = beside.do("diff-copy", database=beside.copy)
    assert len(found["added"]) == 12_001
    assert found["added"] == sorted(found["added"])
    assert found["removed"] == [beside.lost]


def test_swapped_twice_all_is_as_it_was(beside: Beside) -> None:
    beside.assert_swapped(times=0)
    for times in (1, 2, 3):
        done = beside.swap()
        assert done == {
            "practice": str(beside.shard.practice_id),
            "database": beside.copy,
            "rows": 4,
        }
        beside.assert_swapped(times=times)
        beside.fleet.sweep()
    assert set(beside.fleet.databases()) == {beside.live, beside.copy}


def test_whoever_is_connected_while_it_is_swapped_is_cut_off(beside: Beside) -> None:
    with contextlib.closing(beside.fleet.log_in(beside.live, beside.live)) as working:
        beside.swap()
        with pytest.raises(psycopg2.OperationalError):
            working.cursor().execute("SELECT 1")
    beside.assert_swapped(times=1)


@pytest.mark.parametrize("where", ["live", "copy"])
def test_a_superuser_who_looks_at_it_is_in_the_way(beside: Beside, where: str) -> None:
    dsn = beside.fleet.postgres.dsn(getattr(beside, where))
    with contextlib.closing(psycopg2.connect(dsn)), pytest.raises(DeedRefusedError, match="A superuser is connected"):
        beside.swap()
    beside.assert_swapped(times=0)


@pytest.mark.parametrize(("step", "when"), SWAPPING)
def test_killed_while_swapping_it_is_swapped_once(beside: Beside, step: str, when: str) -> None:
    order = {
        "kind": "swap-copy",
        "practice_id": str(beside.shard.practice_id),
        "database": beside.copy,
        "job_id": str(uuid.uuid4()),
    }
    assert interrupted(beside.fleet, json.dumps(order), "-", step, when) == -signal.SIGKILL
    beside.swap()
    beside.assert_swapped(times=1)


@pytest.mark.parametrize("step", ["fence", "exchange"])
def test_a_refused_swap_leaves_the_practice_at_work(beside: Beside, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise psycopg2.errors.LockNotAvailable("canceling statement due to lock timeout")

    with monkeypatch.context() as patched:
        patched.setattr(shard_database, step, refuse)
        with pytest.raises(DeedPostponedError):
            beside.swap()
    beside.assert_swapped(times=0)
    beside.swap()
    beside.assert_swapped(times=1)


def test_a_copy_that_is_not_what_it_should_be_is_not_put_in_place(beside: Beside) -> None:
    execute_at(beside.fleet.postgres.dsn(beside.copy), "ALTER TABLE patients ADD COLUMN more text")
    with pytest.raises(DeedRefusedError, match="isn't what it should be"):
        beside.swap()
    put_back(beside.fleet, beside.shard._replace(database=beside.copy))
    execute_at(beside.fleet.postgres.dsn(beside.copy), "ALTER TABLE patients DROP COLUMN more")
    with pytest.raises(DeedRefusedError, match=f"at revision {FORMER}"):
        beside.swap()
    assert beside.rows(beside.live) == beside.now


def test_a_copy_on_another_server_is_not_swapped(beside: Beside) -> None:
    beside.fleet.change(
        "INSERT INTO tenant.servers (key, host, port, sslmode) SELECT 'z', host, port, sslmode FROM tenant.servers"
    )
    beside.fleet.change("UPDATE tenant.copies SET server = 'z'")
    beside.fleet.servers.refresh()
    with pytest.raises(DeedRefusedError, match="The copy is on server z"):
        beside.swap()
    beside.fleet.change("UPDATE tenant.copies SET server = 'a'")


def test_single_patients_are_taken_back_as_they_were(beside: Beside) -> None:
    done = beside.do("take-back", database=beside.copy, patients=[beside.lost, beside.changed])
    assert done["patients"] == sorted([beside.lost, beside.changed])
    live = {
        row[0]: row[1:]
        for row in beside.fleet.query("SELECT id::text, name, version, is_deleted FROM patients", database=beside.live)
    }
    assert live[beside.lost] == ("c", 1, 0)
    assert live[beside.changed] == ("b", 8, 0)  # a client that knew version 7 notices
    assert live[beside.deleted] == ("d", 1, 1)
    assert live[beside.added] == ("e", 1, 0)
    assert len(live) == 5


def test_of_several_patients_all_are_taken_back_or_none(beside: Beside) -> None:
    unknown = str(uuid.uuid4())
    with pytest.raises(DeedRefusedError, match=f"no such patient: {unknown}"):
        beside.do("take-back", database=beside.copy, patients=[beside.lost, unknown])
    assert beside.rows(beside.live) == beside.now


def test_a_neighbours_copy_is_none_of_the_practices(beside: Beside, tmp_path: Path) -> None:
    neighbour = Beside(beside.fleet, tmp_path)
    for kind in ("diff-copy", "swap-copy", "take-back"):
        with pytest.raises(DeedRefusedError, match="has no copy"):
            neighbour.do(kind, database=beside.copy, patients=[beside.lost])
    with pytest.raises(CopyUnknownError):
        beside.fleet.app.state.keeping.drop(neighbour.shard.practice_id, beside.copy)


def test_the_admin_lists_compares_and_drops_a_copy(beside: Beside) -> None:
    folder = f"/api/v1/admin/practices/{beside.shard.practice_id}/copies"
    with serving(beside.fleet) as tenants:
        wait_for(tenants.is_ready)
        listed = tenants.call("GET", folder, caller=ADMIN).json()["result"]["data"]
        assert listed == [{"server": "a", "database": beside.copy, "origin": "restored", "state": "ready"}]
        job = tenants.call("POST", f"{folder}/{beside.copy}/diff", caller=ADMIN)
        assert job.status_code == 202, job.text
        path = job.headers["location"]
        wait_for(lambda: tenants.call("GET", path, caller=ADMIN).json()["result"]["state"] == "done")
        nobody = tenants.call("POST", f"{folder}/{beside.live}/swap", caller=ADMIN)
        assert (nobody.status_code, nobody.json()["type"]) == (404, "/errors/copy-unknown")
        assert tenants.call("DELETE", f"{folder}/{beside.copy}", caller=ADMIN).status_code == 200
        assert tenants.call("DELETE", f"{folder}/{beside.copy}", caller=ADMIN).status_code == 404
        assert tenants.call("DELETE", f"{folder}/{beside.live}", caller=ADMIN).status_code == 404
        relative = tenants.call("POST", "/api/v1/admin/backups/restore", caller=ADMIN, json={"path": "etc/x"})
        assert relative.status_code == 422
        climbing = tenants.call("POST", "/api/v1/admin/backups/restore", caller=ADMIN, json={"path": "/a/../b"})
        assert climbing.status_code == 422
    assert set(beside.fleet.databases()) == {beside.live}
    assert beside.rows(beside.live) == beside.now
