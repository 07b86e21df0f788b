"""What tests of migrations share: shards that are behind, migrations as an operator has them done, what came out."""

import contextlib
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
from tenant_stand import ADMIN, Fleet, Tenants, execute_at, wait_for

from shared.ids import new_id
from tenant_service import migrating
from tenant_service.fleet_migration import FleetMigration
from tenant_service.jobs import Progress
from tenant_service.storage.directory import Shard

FORMER, HEAD = migrating.shard_revisions()[-2:]
UNDO_THE_LAST = f"ALTER TABLE patients RESET (fillfactor); UPDATE alembic_version SET version_num = '{FORMER}'"


def put_back(fleet: Fleet, *shards: Shard) -> None:
    """Undoes the last migration in the shards and in the directory, as if they had been made before it was written."""
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda shard: execute_at(fleet.postgres.dsn(shard.database), UNDO_THE_LAST), shards))
    names = [shard.database for shard in shards]
    execute_at(
        fleet.postgres.dsn(fleet.database),
        "UPDATE tenant.shards SET revision = %s WHERE database = ANY (%s)",
        FORMER,
        names,
    )


def behind(fleet: Fleet, count: int) -> list[Shard]:
    """New shards that are one revision behind, in the order of their practices."""
    with ThreadPoolExecutor(2) as threads:
        shards = list(threads.map(lambda _: fleet.shard(), range(count)))
    put_back(fleet, *shards)
    return sorted(shards, key=lambda shard: shard.practice_id)


class NoProgress(Progress):
    """A deed that is done here, by no job."""

    def __init__(self, job_id: uuid.UUID | None = None) -> None:
        self.job_id = job_id or new_id()
        self.noted: list[tuple[int, int]] = []

    def note(self, done: int, total: int) -> None:
        self.noted.append((done, total))

    def keep_going(self) -> None:
        """Nothing stops it."""


def migrate(fleet: Fleet, **arguments: Any) -> dict[str, Any]:
    """What a run leads to."""
    migration = FleetMigration(fleet.app.state.engine, fleet.servers, workers=2)
    return migration.run(arguments, NoProgress())


def states(result: dict[str, Any]) -> dict[str, str]:
    """The state of each shard in a result, by database."""
    return {row["database"]: row["state"] for row in result["shards"]}


def row_of(result: dict[str, Any], shard: Shard) -> dict[str, Any]:
    [row] = [row for row in result["shards"] if row["database"] == shard.database]
    return row


def revision_in(fleet: Fleet, shard: Shard) -> str:
    """As the shard itself says."""
    [(revision,)] = fleet.query("SELECT version_num FROM alembic_version", database=str(shard.database))
    return str(revision)


def ledger(fleet: Fleet) -> dict[str, tuple[Any, ...]]:
    """The ledger's rows by database."""
    rows = fleet.query("SELECT database, revision, state, seconds, error, at FROM tenant.shard_migrations")
    return {row[0]: row[1:] for row in rows}


def fences(fleet: Fleet) -> dict[str, str]:
    """The fenced shards, and why they are."""
    return dict(fleet.query("SELECT database, fence FROM tenant.shards WHERE fence IS NOT NULL"))


@contextlib.contextmanager
def table_locked(fleet: Fleet, shard: Shard, mode: str = "SHARE") -> Iterator[None]:
    """Somebody's session holds a lock on the shard's patients."""
    with contextlib.closing(psycopg2.connect(fleet.postgres.dsn(str(shard.database)))) as connection:
        with connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE patients IN {mode} MODE")
        yield


class Order:
    """A migration that an operator asked the running service for."""

    def __init__(self, tenants: Tenants, **order: Any) -> None:
        self.answer = tenants.call("POST", "/api/v1/admin/shards/migrate", caller=ADMIN, json=order)
        assert self.answer.status_code == 202, self.answer.text
        self.id = self.answer.json()["result"]["id"]

    def now(self, tenants: Tenants) -> dict[str, Any]:
        answer = tenants.call("GET", f"/api/v1/admin/jobs/{self.id}", caller=ADMIN)
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()["result"]
        return job

    def result(self, tenants: Tenants) -> dict[str, Any]:
        """Waits for it."""
        job = wait_for(lambda: (now := self.now(tenants))["state"] in ("done", "failed") and now, deadline_s=120)
        assert job["state"] == "done", job
        result: dict[str, Any] = job["result"]
        return result
