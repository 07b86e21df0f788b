"""The isolation report of a practice's copies: restored, left by a move and put aside by a swap, on 18 and on 15."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from migration_stand import NoProgress
from tenant_stand import execute_at
from two_servers import TwoServers, on_two_servers

from gowebbo_stack.testing import PostgresServer
from tenant_service.isolation_checks import Check
from tenant_service.storage.directory import Shard


class Kept(NamedTuple):
    """A practice on server b with the place that it had on a, and what was restored and then swapped there."""

    both: TwoServers
    shard: Shard
    moved: tuple[str, str]
    swapped: tuple[str, str]

    def look(self) -> Check:
        """The check of its copies; all others must be all right."""
        checks = self.both.fleet.app.state.isolation.of_practice(self.shard.practice_id).checks
        assert [check for check in checks[:-1] if not check.ok] == []
        last: Check = checks[-1]
        assert last.name == "copies"
        return last

    def damage(self, place: tuple[str, str], statement: str) -> None:
        """Something done by a server's superuser; `{}` is the copy's name."""
        execute_at(self.both.servers[place[0]].dsn(), statement.format(place[1]))


@pytest.fixture
def kept(postgres: PostgresServer, postgres15: PostgresServer, tmp_path: Path) -> Iterator[Kept]:
    with on_two_servers(postgres, postgres15) as both:
        shard = both.shard_on("a", patients=3)
        practice, deeds = str(shard.practice_id), both.fleet.app.state.deeds
        assert deeds["move-practice"]({"practice_id": practice, "to": "b"}, NoProgress())["result"] == "moved"
        backup = deeds["backup-practice"]({"practice_id": practice, "to": str(tmp_path)}, NoProgress())
        copy = deeds["restore-backup"]({"path": backup["path"]}, NoProgress())["database"]
        deeds["swap-copy"]({"practice_id": practice, "database": copy}, NoProgress())
        yield Kept(both, shard, ("a", str(shard.database)), ("b", copy))


def test_copies_that_nobody_can_reach_are_all_right(kept: Kept) -> None:
    assert kept.look() == Check("copies", ok=True, detail="2, open to the server's admin alone")


@pytest.mark.parametrize("kind", ["moved", "swapped"])
@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("GRANT CONNECT ON DATABASE {} TO PUBLIC", "rights of PUBLIC on the database: CONNECT"),
        ("GRANT CONNECT ON DATABASE {} TO shard_rw", "rights of roles on the database: shard_rw CONNECT"),
        ("ALTER DATABASE {} RESET gowebbo.practice_id", "settings of the database: "),
        ("DROP DATABASE {} WITH (FORCE)", "there is no such database"),
    ],
)
def test_each_damage_of_a_copy_is_told(kept: Kept, kind: str, statement: str, told: str) -> None:
    place = getattr(kept, kind)
    kept.damage(place, statement)
    found = kept.look()
    assert not found.ok
    assert found.detail.startswith(f"{place[1]} on {place[0]}: {told}")


def test_a_copys_role_that_may_log_in_is_told(kept: Kept) -> None:
    kept.damage(kept.moved, "ALTER ROLE {} LOGIN")
    assert kept.look() == Check("copies", ok=False, detail=f"{kept.moved[1]} on a: its role may log in")


def test_a_copy_that_passes_for_the_shard_is_told(kept: Kept) -> None:
    kept.damage(kept.moved, f"ALTER DATABASE {{}} SET gowebbo.practice_id = '{kept.shard.practice_id}'")
    assert "missing: gowebbo.practice_id copy:" in kept.look().detail


def test_a_server_that_cannot_be_asked_for_a_copy_is_told(kept: Kept) -> None:
    fleet = kept.both.fleet
    fleet.change("INSERT INTO tenant.servers (key, host, port, sslmode) VALUES ('down', '127.0.0.1', 1, 'prefer')")
    fleet.change("UPDATE tenant.copies SET server = 'down' WHERE server = 'a'")
    fleet.servers.refresh()
    assert f"{kept.moved[1]} on down: server down can't be asked" in kept.look().detail
