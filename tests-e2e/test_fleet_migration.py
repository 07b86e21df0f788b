"""`shards status` and `shards migrate`: an operator brings a fleet to the newest revision while practices work."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import pytest
from e2e_api import PATIENTS, Api, Practice, assert_error, patient_path
from e2e_stack import GOWEBBO, EmbeddedStack, StackFactory, eventually, pids_of, psql, rows

KEYS = {"practice_id", "server", "database", "revision", "fingerprint_ok", "state", "seconds", "error"}
FORMER, HEAD = "0001", "0002"
UNDO_THE_LAST = f"ALTER TABLE patients RESET (fillfactor); UPDATE alembic_version SET version_num = '{FORMER}'"


class Fleet:
    """A stack with some practices, and the superuser's hand in their shards."""

    def __init__(self, stack: EmbeddedStack, practices: list[Practice]) -> None:
        self.stack = stack
        self.practices = practices
        listed = {one["id"]: one["database"] for one in stack.command_json("practices", "list")}
        self.databases = [listed[practice.id] for practice in practices]

    def dsn(self, number: int) -> str:
        return self.stack.dsn(self.databases[number])

    def put_back(self) -> None:
        """As if every shard had been made before the newest migration was written."""
        for number in range(len(self.practices)):
            self.sql(number, UNDO_THE_LAST)
        with psql(self.central) as cursor:
            cursor.execute("UPDATE tenant.shards SET revision = %s WHERE state = 'ready'", (FORMER,))
            cursor.execute("DELETE FROM tenant.shard_migrations")

    def sql(self, number: int, statement: str) -> None:
        with psql(self.dsn(number)) as cursor:
            cursor.execute(statement)

    @property
    def central(self) -> str:
        return self.stack.dsn(self.stack.central_database())

    def revisions(self) -> list[str]:
        """As each shard itself says."""
        return [rows(self.dsn(n), "SELECT version_num FROM alembic_version")[0][0] for n in range(len(self.practices))]

    def ledger(self) -> dict[str, tuple[Any, ...]]:
        found = rows(self.central, "SELECT database, revision, state, seconds, error, at FROM tenant.shard_migrations")
        return {row[0]: row[1:] for row in found}

    @contextlib.contextmanager
    def locked(self, number: int, mode: str = "ACCESS EXCLUSIVE") -> Iterator[None]:
        """Somebody's session holds a lock on the shard's patients."""
        with contextlib.closing(psycopg2.connect(self.dsn(number))) as connection:
            connection.cursor().execute(f"LOCK TABLE patients IN {mode} MODE")
            yield

    def shards(self, *words: str, succeeds: bool = True) -> list[dict[str, Any]]:
        """What `gowebbo shards …` printed of these practices, in their order."""
        done = self.stack.command("shards", *words, "--json", timeout_s=180)
        assert (done.returncode == 0) is succeeds, (done.stdout, done.stderr)
        shown = json.loads(done.stdout)
        assert set(shown) == {"head", "shards"}
        assert shown["head"] == HEAD
        assert all(set(shard) == KEYS for shard in shown["shards"])
        found = {shard["database"]: shard for shard in shown["shards"]}
        assert set(found) == set(self.databases)
        return [found[database] for database in self.databases]


@pytest.fixture(scope="module")
def fleet(new_stack: StackFactory) -> Fleet:
    stack = new_stack(EMBEDDED_SERVERS="1").start()
    api = Api(stack.url)
    with ThreadPoolExecutor(3) as threads:
        practices = list(threads.map(lambda _: Practice.join(api), range(12)))
    for practice in practices:
        practice.new_patient(name="Resident")
    return Fleet(stack, practices)


def test_a_new_fleet_is_current(fleet: Fleet) -> None:
    shards = fleet.shards("status")
    assert {(shard["state"], shard["revision"], shard["fingerprint_ok"]) for shard in shards} == {
        ("current", HEAD, True)
    }
    assert [shard["practice_id"] for shard in shards] == [practice.id for practice in fleet.practices]


def test_all_but_a_locked_one_are_migrated_and_the_next_run_does_what_is_left(fleet: Fleet) -> None:
    fleet.put_back()
    assert {shard["state"] for shard in fleet.shards("status", succeeds=False)} == {"behind"}
    with fleet.locked(4):
        shards = fleet.shards("migrate", succeeds=False)
    assert Counter(shard["state"] for shard in shards) == {"done": 11, "failed": 1}
    assert (shards[4]["state"], shards[4]["revision"], shards[4]["fingerprint_ok"]) == ("failed", FORMER, None)
    assert "lock" in shards[4]["error"]
    assert all(shard["seconds"] > 0 for shard in shards)
    assert fleet.practices[4].get(PATIENTS).status_code == 200  # one revision behind is no reason to stop
    first = fleet.ledger()
    assert set(first) == set(fleet.databases)

    assert {shard["state"] for shard in fleet.shards("migrate")} == {"done"}
    second = fleet.ledger()
    assert [name for name in second if second[name] != first[name]] == [fleet.databases[4]]
    assert fleet.revisions() == [HEAD] * 12

    fleet.shards("migrate")
    assert fleet.ledger() == second
    fleet.shards("status")


def test_a_shard_that_is_not_what_its_stamp_says_is_fenced_alone_until_it_is_repaired(fleet: Fleet) -> None:
    bad, *others = fleet.practices
    fleet.sql(0, "DROP INDEX patients_active_idx; GRANT DELETE ON patients TO shard_rw")
    assert bad.get(PATIENTS).status_code == 200  # nobody has looked
    shown = fleet.shards("status", succeeds=False)
    assert (shown[0]["state"], shown[0]["fingerprint_ok"], shown[0]["revision"]) == ("drifted", False, HEAD)
    shards = fleet.shards("migrate", succeeds=False)
    assert Counter(shard["state"] for shard in shards) == {"done": 11, "drifted": 1}
    assert "- index CREATE INDEX patients_active_idx" in shards[0]["error"]
    assert "+ grant DELETE, INSERT, SELECT, UPDATE" in shards[0]["error"]

    refused = eventually(
        lambda: (answer := bad.get(PATIENTS)).status_code != 200 and answer, "the shard is fenced", timeout_s=5
    )
    assert "maintenance" in assert_error(refused, 503, "shard-maintenance")["message"]
    assert_error(bad.add(), 503, "shard-maintenance")
    for other in others:
        other.new_patient()
    assert rows(fleet.dsn(0), "SELECT count(*) FROM patients") == [(1,)]

    fleet.sql(0, "REVOKE DELETE ON patients FROM shard_rw")
    fleet.sql(0, "CREATE INDEX patients_active_idx ON patients (id) WHERE is_deleted = 0")
    assert fleet.shards("status", succeeds=False)[0]["state"] == "fenced"
    fleet.shards("migrate")
    fleet.shards("status")
    eventually(lambda: bad.get(PATIENTS).status_code == 200, "the fence is lifted", timeout_s=5)
    assert [patient["name"] for patient in bad.patients()] == ["Resident"]


def test_the_rest_is_not_touched_when_one_of_the_first_fails(fleet: Fleet) -> None:
    fleet.put_back()
    with psql(fleet.central) as cursor:
        cursor.execute("SELECT database FROM tenant.shards WHERE state = 'ready' ORDER BY practice_id LIMIT 1")
        first = fleet.databases.index(cursor.fetchall()[0][0])
    with fleet.locked(first):
        done = fleet.stack.command("shards", "migrate", "--canary", "2", timeout_s=120)
    assert done.returncode == 1
    assert "1 done, 1 failed, 10 skipped. One of the first 2 did not succeed" in done.stderr
    assert Counter(fleet.revisions()) == {HEAD: 1, FORMER: 11}
    assert {shard["state"] for shard in fleet.shards("migrate", "--canary", "2")} == {"done"}
    assert fleet.revisions() == [HEAD] * 12


def test_a_killed_process_is_followed_by_one_that_does_what_is_left(fleet: Fleet) -> None:
    """The operator's command waits for it."""
    fleet.put_back()
    stack = fleet.stack
    with contextlib.ExitStack() as locks:
        for number in (5, 6, 7, 8):  # each takes some seconds, so that the run is in its middle
            locks.enter_context(fleet.locked(number))
        command = subprocess.Popen(
            [str(GOWEBBO), "shards", "migrate", "--json"],
            env=stack.environment,
            cwd=stack.folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        eventually(lambda: FORMER in (now := fleet.revisions()) and HEAD in now, "a part is migrated", timeout_s=30)
        [pid] = pids_of(stack.status()["tenant-service"])
        os.kill(pid, signal.SIGKILL)
    before = {name: entry for name, entry in fleet.ledger().items() if entry[1] == "done"}
    assert before
    printed, _ = command.communicate(timeout=120)
    assert command.returncode == 0
    assert {shard["state"] for shard in json.loads(printed)["shards"]} == {"done"}
    assert fleet.revisions() == [HEAD] * 12
    assert {name: fleet.ledger()[name] for name in before} == before


def test_practices_at_work_see_nothing_but_successes_and_503(fleet: Fleet) -> None:
    """What they have prepared in their sessions outlives the migration."""
    seen: Counter[int] = Counter()
    over = threading.Event()

    def work(practice: Practice) -> None:
        while not over.is_set():
            added = practice.add()
            seen[added.status_code] += 1
            if added.status_code != 201:
                continue
            path = patient_path(added.json()["result"]["id"])
            for call in (("GET", PATIENTS), ("GET", path), ("PATCH", path), ("DELETE", path)):
                body = {"json": {"age": 31}} if call[0] == "PATCH" else {}
                seen[practice.call(*call, **body).status_code] += 1

    with ThreadPoolExecutor(4) as threads:
        working = [threads.submit(work, practice) for practice in fleet.practices[:4]]
        try:
            for _ in range(3):
                before = sum(seen.values())
                eventually(lambda before=before: sum(seen.values()) > before + 100, "work goes on", timeout_s=30)
                fleet.put_back()
                fleet.shards("migrate")
        finally:
            over.set()
        for one in working:
            one.result()
    assert set(seen) <= {200, 201, 503}
    assert seen[200] > 0
    assert seen[503] < sum(seen.values()) / 10
    fleet.shards("status")


def test_people_get_a_table(fleet: Fleet) -> None:
    done = fleet.stack.command("shards", "status")
    assert done.returncode == 0
    assert all(database in done.stdout for database in fleet.databases)
    assert f"Newest revision: {HEAD}" in done.stdout
