"""kill -9 at each step, and at any time: calling again finishes, undoing leaves nothing, the reconciler resumes."""

import random
import signal
import uuid

import pytest
from tenant_stand import Fleet, execute_at, interrupted

from shared.ids import new_id

MAKING = [
    ("shard_database.clone", "before"),
    ("shard_database.clone", "after"),
    ("shard_database.open_to_its_role", "after"),
    ("storage.directory.mark_ready", "after"),
]
UNDOING = [
    ("shard_database.lock_out", "before"),
    ("shard_database.lock_out", "after"),
    ("shard_database.drop", "before"),
    ("shard_database.drop", "after"),
    ("storage.directory.forget_place", "after"),
]


def assert_nothing_left(fleet: Fleet, practice_id: uuid.UUID) -> None:
    rows = fleet.query("SELECT state, server, database FROM tenant.shards WHERE practice_id = %s", str(practice_id))
    assert rows == [("undone", None, None)]
    assert fleet.databases() == {}


@pytest.mark.parametrize(("step", "when"), MAKING)
def test_making_goes_on_where_it_was_killed(fleet: Fleet, step: str, when: str) -> None:
    practice_id = new_id()
    assert interrupted(fleet, "ensure", practice_id, step, when) == -signal.SIGKILL
    assert fleet.state_of(practice_id) == "creating"
    shard, _ = fleet.provisioning.ensure(practice_id)
    assert fleet.databases() == {shard.database: True}
    fleet.store_patient(shard.database)


@pytest.mark.parametrize(("step", "when"), MAKING)
def test_what_was_killed_while_it_was_made_can_be_undone(fleet: Fleet, step: str, when: str) -> None:
    practice_id = new_id()
    interrupted(fleet, "ensure", practice_id, step, when)
    ((database,),) = fleet.query("SELECT database FROM tenant.shards WHERE practice_id = %s", str(practice_id))
    fleet.provisioning.release(practice_id)
    assert_nothing_left(fleet, practice_id)
    for query in ("SELECT 1 FROM pg_database WHERE datname = %s", "SELECT 1 FROM pg_roles WHERE rolname = %s"):
        assert fleet.query(query, database) == []


@pytest.mark.parametrize(("step", "when"), UNDOING)
@pytest.mark.parametrize("again", ["release", "sweep"])
def test_undoing_goes_on_where_it_was_killed(fleet: Fleet, step: str, when: str, again: str) -> None:
    shard = fleet.shard()
    assert interrupted(fleet, "release", shard.practice_id, step, when) == -signal.SIGKILL
    assert fleet.state_of(shard.practice_id) == "undone"
    if again == "release":
        fleet.provisioning.release(shard.practice_id)
    else:
        fleet.sweep()
    assert_nothing_left(fleet, shard.practice_id)
    assert fleet.query("SELECT 1 FROM pg_roles WHERE rolname = %s", shard.database) == []


def test_killed_at_any_moment_a_shard_can_be_made_whole(fleet: Fleet) -> None:
    """The server goes on with the statement of a killed process; nobody may overtake it."""
    practices = [new_id() for _ in range(5)]
    for practice_id in practices:
        interrupted(fleet, "ensure", practice_id, str(random.uniform(0, 25)))
        shard, _ = fleet.provisioning.ensure(practice_id)
        fleet.store_patient(shard.database)
    assert len(fleet.databases()) == len(practices)


def test_killed_at_any_moment_a_shard_can_be_undone(fleet: Fleet) -> None:
    before = fleet.query("SELECT count(*) FROM pg_database")
    for _ in range(5):
        practice_id = new_id()
        interrupted(fleet, "ensure", practice_id, str(random.uniform(0, 25)))
        fleet.provisioning.release(practice_id)
    assert fleet.query("SELECT count(*) FROM pg_database") == before


def test_killed_before_the_row_a_patient_keeps_the_shard_from_being_dropped(fleet: Fleet) -> None:
    """Between finding rows and quarantining: the next round comes to the same finding."""
    shard = fleet.shard()
    fleet.store_patient(shard.database)
    interrupted(fleet, "release", shard.practice_id, "storage.directory.mark_quarantined", "before")
    assert fleet.state_of(shard.practice_id) == "undone"
    fleet.sweep()
    assert fleet.state_of(shard.practice_id) == "quarantined"
    assert fleet.databases() == {shard.database: False}


def test_killed_between_the_row_and_closing_a_patient_is_still_kept(fleet: Fleet) -> None:
    shard = fleet.shard()
    fleet.store_patient(shard.database)
    interrupted(fleet, "release", shard.practice_id, "shard_database.close", "before")
    assert fleet.state_of(shard.practice_id) == "quarantined"
    fleet.sweep()
    assert fleet.provisioning.release(shard.practice_id).state == "quarantined"
    assert fleet.databases() == {shard.database: False}


def test_killed_while_an_orphan_is_quarantined_it_is_closed_by_the_next_round(fleet: Fleet) -> None:
    shard = fleet.shard()
    execute_at(fleet.postgres.dsn(fleet.database), "UPDATE tenant.shards SET state = 'quarantined'")
    assert fleet.databases() == {shard.database: True}
    fleet.sweep()
    assert fleet.databases() == {shard.database: False}
