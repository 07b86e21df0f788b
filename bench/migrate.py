"""How long the last migration takes over a fleet: `python bench/migrate.py [PRACTICES]` (1,000); writes migrate.md.

An embedded stack of its own: it signs the practices up, puts all their shards back by one revision with SQL, and lets
`gowebbo shards migrate` bring them to the newest, with different numbers of shards at once.
"""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import described
from practices import sign_up
from stand import GOWEBBO, Stand, running_stack, temporary_home
from tables import figure, table

AT_ONCE = (1, 2, 4, 8)
REPORT = Path(__file__).with_name("migrate.md")
UNDO_THE_LAST = "ALTER TABLE patients RESET (fillfactor); UPDATE alembic_version SET version_num = '0001'"
PARTS = ("postgres", "tenant-service")


@dataclass(frozen=True)
class Run:
    """A command over all shards: seconds from its start to its end, and of the processors' time by part."""

    seconds: float
    cpu_s: dict[str, float]


def main() -> None:
    """Measures and writes the report."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    migrated: dict[int, Run] = {}
    with temporary_home() as home:
        for at_once in AT_ONCE:
            with running_stack(home, MIGRATIONS_PER_SERVER=at_once) as stand:
                if not migrated:
                    made = sign_up(stand, "practice", range(count), clients=8)
                    assert not made.failed, f"{made.failed} sign-ups failed"
                migrated[at_once] = _migrate(stand, count)
                print(f"{at_once} at once: {migrated[at_once].seconds:.1f} s", flush=True)
                if at_once == AT_ONCE[1]:
                    again, looked = _run(stand, count, "migrate", "done"), _run(stand, count, "status", "current")
    REPORT.write_text(_report(count, migrated, again, looked))


def _migrate(stand: Stand, count: int) -> Run:
    with stand.sql("gowebbo") as cursor:
        cursor.execute("SELECT database FROM tenant.shards WHERE state = 'ready'")
        databases = [database for (database,) in cursor.fetchall()]
        cursor.execute("DELETE FROM tenant.shard_migrations")
        cursor.execute("UPDATE tenant.shards SET revision = '0001' WHERE state = 'ready'")
    assert len(databases) == count
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda database: _put_back(stand, database), databases))
    with stand.sql("postgres") as cursor:
        cursor.execute("CHECKPOINT")
    return _run(stand, count, "migrate", "done")


def _put_back(stand: Stand, database: str) -> None:
    with stand.sql(database) as cursor:
        cursor.execute(UNDO_THE_LAST)


def _run(stand: Stand, count: int, command: str, wanted: str) -> Run:
    stand.wait_idle()
    before, began = stand.cpu_s(), time.monotonic()
    environment = {"GOWEBBO_HOME": str(stand.home / "data")}
    printed = subprocess.check_output([GOWEBBO, "shards", command, "--json"], env=environment, cwd=stand.home)
    seconds, after = time.monotonic() - began, stand.cpu_s()
    shards: list[dict[str, Any]] = json.loads(printed)["shards"]
    assert [shard["state"] for shard in shards] == [wanted] * count
    return Run(seconds, {part: after[part] - before[part] for part in PARTS})


def _report(count: int, migrated: dict[int, Run], again: Run, looked: Run) -> str:
    named = {f"migrate, {at_once} at once": run for at_once, run in migrated.items()}
    named |= {f"migrate again, {AT_ONCE[1]} at once: nothing to do": again, "status": looked}
    rows = [
        [
            name,
            figure(run.seconds),
            figure(run.seconds * 1000 / count),
            *(figure(run.cpu_s[part] * 1000 / count) for part in PARTS),
            figure(sum(run.cpu_s.values()) / run.seconds, 2),
        ]
        for name, run in named.items()
    ]
    head = ["", "seconds", "ms a shard", *(f"{part}'s ms a shard" for part in PARTS), "cores used by both"]
    lines = [
        "# Migrating a fleet, measured",
        "",
        "Written by `make bench-migrate`; [docs/operations.md](../docs/operations.md) says what it means.",
        "",
        *described(),
        "",
        f"{count:,} shards on one server, all one revision behind; `gowebbo shards …` from its start to its end.",
        "The columns of a part are the processors' time that it took.",
        "",
        *table(head, rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
