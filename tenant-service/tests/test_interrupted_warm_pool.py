"""kill -9 at each step of making ahead, claiming and dropping, and of PostgreSQL: nothing half-made is handed out."""

import contextlib
import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tenant_stand import Fleet, interrupted, new_fleet, wait_for

from gowebbo_stack.launching import start
from gowebbo_stack.postgres import Postgres
from gowebbo_stack.testing import PostgresServer, running_postgres
from shared.ids import new_id
from tenant_service import shard_database
from tenant_service.server_admin import AdminSession
from tenant_service.servers import FAULTS

MAKING = [
    ("shard_database.clone", "before"),
    ("shard_database.clone", "after"),
    ("shard_database.furnish", "after"),
    ("storage.warm.mark_ready", "after"),
]
CLAIMING = [
    ("storage.warm.claim", "after"),
    ("shard_database.hand_over", "before"),
    ("shard_database.hand_over", "after"),
    ("storage.directory.mark_ready", "after"),
]
DROPPING = [
    ("shard_database.drop", "before"),
    ("shard_database.drop", "after"),
    ("storage.warm.forget", "after"),
]
SIZE = 2


@pytest.fixture
def fleet(postgres: PostgresServer) -> Iterator[Fleet]:
    made = new_fleet(postgres, shard_warm_pool=SIZE)
    assert made.servers.refresh()
    yield made
    made.drop_everything()


def assert_whole(fleet: Fleet, *, ready: int = SIZE) -> None:
    """So many are ready, nothing else is there, and each serves a practice."""
    assert fleet.warm("making") == fleet.warm("dropping") == []
    assert len(fleet.warm()) == ready
    owned = [row[0] for row in fleet.query("SELECT database FROM tenant.shards")]
    assert fleet.databases() == dict.fromkeys(owned, True) | dict.fromkeys(fleet.warm(), False)
    for _ in range(ready):
        fleet.store_patient(fleet.shard().database)


@pytest.mark.parametrize(("step", "when"), MAKING)
def test_making_ahead_goes_on_where_it_was_killed(fleet: Fleet, step: str, when: str) -> None:
    assert interrupted(fleet, "refill", "-", step, when) == -signal.SIGKILL
    assert len(fleet.warm("making")) == 1
    assert fleet.shard().database not in fleet.warm("making")
    fleet.sweep()
    fleet.pool.refill()
    assert_whole(fleet)


def test_killed_at_any_moment_all_are_made_and_no_more(fleet: Fleet) -> None:
    for _ in range(5):
        interrupted(fleet, "refill", "-", str(random.uniform(0, 60)))
    fleet.sweep()
    fleet.pool.refill()
    wait_for(lambda: not fleet.warm("making") or fleet.sweep())  # the server may go on with a killed process's clone
    assert_whole(fleet)


@pytest.mark.parametrize("step", ["clone", "furnish"])
def test_what_was_killed_while_it_was_made_is_dropped_with_its_server(fleet: Fleet, step: str) -> None:
    interrupted(fleet, "refill", "-", f"shard_database.{step}", "after")
    (database,) = fleet.warm("making")
    fleet.change("UPDATE tenant.servers SET state = 'draining'")
    fleet.sweep()
    assert fleet.query("SELECT * FROM tenant.warm_shards") == []
    for query in ("SELECT 1 FROM pg_database WHERE datname = %s", "SELECT 1 FROM pg_roles WHERE rolname = %s"):
        assert fleet.query(query, database) == []


@pytest.mark.parametrize(("step", "when"), CLAIMING)
def test_claiming_goes_on_where_it_was_killed(fleet: Fleet, step: str, when: str) -> None:
    fleet.pool.refill()
    first, second = fleet.warm()
    practice_id = new_id()
    assert interrupted(fleet, "ensure", practice_id, step, when) == -signal.SIGKILL
    shard, _ = fleet.provisioning.ensure(practice_id)
    assert (shard.database, fleet.stamp_of(first)) == (first, str(practice_id))
    fleet.store_patient(first)
    assert fleet.warm() == [second]
    assert fleet.databases() == {first: True, second: False}


@pytest.mark.parametrize(("step", "when"), CLAIMING)
def test_what_was_killed_while_it_was_claimed_can_be_undone(fleet: Fleet, step: str, when: str) -> None:
    fleet.pool.refill()
    practice_id = new_id()
    interrupted(fleet, "ensure", practice_id, step, when)
    fleet.provisioning.release(practice_id)
    fleet.sweep()
    assert fleet.query("SELECT state, database FROM tenant.shards") == [("undone", None)]
    assert fleet.databases() == dict.fromkeys(fleet.warm(), False)
    assert len(fleet.warm()) == (SIZE if step == "storage.warm.claim" else SIZE - 1)


def test_killed_at_any_moment_a_claim_can_be_finished(fleet: Fleet) -> None:
    for _ in range(5):
        fleet.pool.refill()
        practice_id = new_id()
        interrupted(fleet, "ensure", practice_id, str(random.uniform(0, 8)))
        shard, _ = fleet.provisioning.ensure(practice_id)
        assert fleet.stamp_of(shard.database) == str(practice_id)
        fleet.store_patient(shard.database)
    assert set(fleet.databases().values()) <= {True, False}
    fleet.sweep()
    assert_whole(fleet, ready=len(fleet.warm()))


@pytest.mark.parametrize(("step", "when"), DROPPING)
def test_dropping_goes_on_where_it_was_killed(fleet: Fleet, step: str, when: str) -> None:
    fleet.pool.refill()
    databases = fleet.warm()
    fleet.change("UPDATE tenant.servers SET state = 'draining'")
    assert interrupted(fleet, "settle", "-", step, when) == -signal.SIGKILL
    assert len(fleet.warm("dropping")) == SIZE
    fleet.sweep()
    assert fleet.query("SELECT * FROM tenant.warm_shards") == []
    assert fleet.databases() == {}
    assert fleet.query("SELECT 1 FROM pg_roles WHERE rolname = ANY (%s)", databases) == []


class MortalPostgres:
    """A PostgreSQL of the test's own that is killed and started again on the same data."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        self.server = server
        self._folder = folder
        self._pid = server.pid
        self._again: list[object] = []

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)  # a zombie counts as running

    def start(self) -> None:
        """Until it answers: the dead one's backends may still hold its memory."""
        program = Postgres(
            self._folder / "postgres", self.server.port, self.server.password, max_connections=200, durable=False
        )

        def answers() -> bool:
            process = start(program.launch(self._folder / "postgres.log"))
            with contextlib.suppress(AssertionError):
                wait_for(lambda: process.poll() is not None or program.accepts_connections())
            if process.poll() is not None:
                return False
            self._pid = process.pid
            self._again.append(process)
            return True

        wait_for(answers, deadline_s=60)

    def stop(self) -> None:
        for process in self._again:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait(20)


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[MortalPostgres]:
    with running_postgres(tmp_path) as server:
        made = MortalPostgres(server, tmp_path)
        yield made
        made.stop()


def test_postgresql_killed_while_it_clones_leaves_nothing_half_made(
    mortal: MortalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = new_fleet(mortal.server, shard_warm_pool=SIZE)
    fleet.servers.refresh()
    clone = shard_database.clone

    def killed_clone(session: AdminSession, database: str, *, template: str) -> None:
        threading.Timer(random.uniform(0, 0.015), mortal.kill).start()
        clone(session, database, template=template)
        wait_for(lambda: session.rows("SELECT 1") and False)  # it was quicker: dies in the next statement

    for number in range(3):
        with monkeypatch.context() as cut_off:
            cut_off.setattr(shard_database, "clone", killed_clone)
            deed = fleet.pool.refill if number % 2 == 0 else fleet.shard
            with contextlib.suppress(*FAULTS):
                assert not deed()
        mortal.start()
        fleet.servers.refresh()
    fleet.sweep()
    fleet.pool.refill()
    assert fleet.warm("making") == []
    assert len(fleet.warm()) == SIZE
    for practice_id, state in fleet.query("SELECT practice_id, state FROM tenant.shards"):
        assert state == "creating"
        fleet.provisioning.ensure(practice_id)
    owned = [row[0] for row in fleet.query("SELECT database FROM tenant.shards")]
    shards = fleet.query("SELECT datname FROM pg_database WHERE datname LIKE 'shard\\_%%'")
    assert {row[0] for row in shards} == {*owned, *fleet.warm()}
    for database in owned + [fleet.shard().database for _ in range(SIZE)]:
        fleet.store_patient(database)
    fleet.app.state.engine.dispose()
    fleet.servers.close()
