"""The ledger of shard migrations: how the last attempt to bring each shard to each revision went."""

from collections.abc import Collection
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import Connection, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert

from tenant_service.schema import shard_migrations


class MigrationState(StrEnum):
    """`failed`: it is where it was. `drifted`: it is not what its revision leads to, and was left as it was."""

    DONE = "done"
    FAILED = "failed"
    DRIFTED = "drifted"


class Entry(NamedTuple):
    """The last attempt; `seconds` is how long it took."""

    database: str
    state: MigrationState
    seconds: float
    error: str | None


def record(connection: Connection, entry: Entry, *, revision: str, changed: bool) -> None:
    """Notes an attempt. What is done stays as it was noted unless something was `changed` in the shard."""
    statement = insert(shard_migrations).values(revision=revision, **entry._asdict())
    new = statement.excluded
    done_before_and_now = (shard_migrations.c.state == MigrationState.DONE) & (new.state == MigrationState.DONE)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["database", "revision"],
            set_={"state": new.state, "seconds": new.seconds, "error": new.error, "at": func.now()},
            where=or_(~done_before_and_now, literal(changed)),
        )
    )


def entries(connection: Connection, revision: str, databases: Collection[str]) -> dict[str, Entry]:
    """What is noted of these shards for this revision, by database."""
    columns = [shard_migrations.c[name] for name in Entry._fields]
    query = select(*columns).where(shard_migrations.c.revision == revision, shard_migrations.c.database.in_(databases))
    found = (Entry(*row)._replace(state=MigrationState(row.state)) for row in connection.execute(query))
    return {entry.database: entry for entry in found}
