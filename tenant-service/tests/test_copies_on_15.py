"""What is done with backups and copies on PostgreSQL 15, and with a copy that a move left on the other server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from migration_stand import NoProgress
from two_servers import TwoServers, on_two_servers

from gowebbo_stack.testing import PostgresServer
from shared.shards import ShardName
from tenant_service.exceptions import DeedRefusedError


@pytest.fixture
def both(postgres: PostgresServer, postgres15: PostgresServer) -> Iterator[TwoServers]:
    with on_two_servers(postgres, postgres15) as servers:
        yield servers


def do(both: TwoServers, kind: str, **arguments: Any) -> dict[str, Any]:
    result: dict[str, Any] = both.fleet.app.state.deeds[kind](arguments, NoProgress())
    return result


def test_a_backup_of_15_is_restored_compared_swapped_and_erased_there(both: TwoServers, tmp_path: Path) -> None:
    shard = both.shard_on("b", patients=5)
    practice, live = str(shard.practice_id), str(shard.database)
    then = both.rows("b", live)
    backup = do(both, "backup-practice", practice_id=practice, to=str(tmp_path))
    both.execute(shard, "UPDATE patients SET age = 9")
    now = both.rows("b", live)
    copy = do(both, "restore-backup", path=backup["path"])["database"]
    assert both.rows("b", copy) == then
    assert len(do(both, "diff-copy", practice_id=practice, database=copy)["changed"]) == 5
    do(both, "swap-copy", practice_id=practice, database=copy)
    assert (both.rows("b", live), both.rows("b", copy)) == (then, now)
    both.log_in(shard).close()
    report = both.fleet.app.state.isolation.of_practice(shard.practice_id)
    assert all(check.ok for check in report.checks), report
    both.fleet.app.state.erasing.erase(shard.practice_id)
    assert both.databases("b") == both.databases("a") == set()


@pytest.mark.parametrize(("origin", "to"), [("a", "b"), ("b", "a")])
def test_a_backup_of_one_version_is_restored_on_the_other(
    both: TwoServers, tmp_path: Path, origin: str, to: str
) -> None:
    shard = both.shard_on(origin, patients=5)
    practice = str(shard.practice_id)
    then = both.rows(origin, str(shard.database))
    backup = do(both, "backup-practice", practice_id=practice, to=str(tmp_path))
    both.fleet.app.state.moving.move(shard.practice_id, to, NoProgress())
    copy = do(both, "restore-backup", path=backup["path"])["database"]
    assert both.rows(to, copy) == then


def test_a_moves_former_place_can_be_compared_and_taken_from(both: TwoServers) -> None:
    shard = both.shard_on("a", patients=3)
    practice, database = str(shard.practice_id), str(shard.database)
    both.fleet.app.state.moving.move(shard.practice_id, "b", NoProgress())
    [patient, *_] = sorted(both.patients(shard))
    both.execute(shard, "UPDATE patients SET name = 'Other' WHERE id = %s", patient)
    found = do(both, "diff-copy", practice_id=practice, database=database)
    assert (found["added"], found["removed"], found["changed"]) == ([], [], [patient])
    do(both, "take-back", practice_id=practice, database=database, patients=[patient])
    assert both.query(shard, "SELECT count(*) FROM patients WHERE name = 'Other'") == [(0,)]
    with pytest.raises(DeedRefusedError, match="The copy is on server a"):
        do(both, "swap-copy", practice_id=practice, database=database)
    both.fleet.app.state.keeping.drop(shard.practice_id, database)
    assert ShardName(*both.place(shard.practice_id)) == ShardName("b", database)
    assert (both.databases("a"), both.databases("b")) == (set(), {database})
