"""What differs between a practice's shard and a copy of it, patient by patient; and single patients taken back."""

import contextlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg2
from psycopg2 import sql
from sqlalchemy import Engine

from shared.logs import get_logger
from tenant_service import shard_copy, shard_migration
from tenant_service.exceptions import DeedRefusedError, ShardServerUnavailableError
from tenant_service.jobs import Progress
from tenant_service.server_admin import Access
from tenant_service.servers import ServerRegistry
from tenant_service.shard_copy import Session, Table
from tenant_service.storage import copies, directory
from tenant_service.storage.copies import Copy
from tenant_service.storage.directory import Shard, ShardState

DIFF_KIND, TAKE_BACK_KIND = "diff-copy", "take-back"
PATIENTS = "patients"
MOST_IDS = 100_000
"""In each list of a comparison."""
_PORTION = 5_000
_log = get_logger()


class Pair(NamedTuple):
    """A practice's shard and one of its copies, and how to get to each."""

    shard: Shard
    copy: Copy
    live_access: Access
    copy_access: Access


class Comparing:
    """The deeds of the jobs of both kinds. Blocking; safe to share among threads and replicas."""

    def __init__(self, engine: Engine, servers: ServerRegistry) -> None:
        self._engine = engine
        self._servers = servers

    def pair(self, practice_id: uuid.UUID, database: str) -> Pair:
        """Both places. Raises DeedRefusedError."""
        with self._engine.begin() as connection:
            shard = directory.find_shard(connection, practice_id)
            copy = copies.find_copy(connection, practice_id, database)
        if shard is None or shard.state is not ShardState.READY:
            raise DeedRefusedError("The practice has no shard.")
        if copy is None:
            raise DeedRefusedError(f"The practice has no copy {database}.")
        try:
            live, there = self._servers.admin(shard.name.server), self._servers.admin(copy.server)
        except ShardServerUnavailableError as fault:
            raise DeedRefusedError(str(fault)) from fault
        return Pair(shard, copy, live.access, there.access)

    def diff(self, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """`{added, removed, changed}` as ids, seen from the copy: added is only in the live one."""
        pair = self.pair(uuid.UUID(arguments["practice_id"]), arguments["database"])
        found: dict[str, list[str]] = {"added": [], "removed": [], "changed": []}
        is_truncated = False
        with _both_open(pair) as (live, copy):
            for kind, patient in _differences(_fingerprints(live), _fingerprints(copy)):
                if len(found[kind]) < MOST_IDS:
                    found[kind].append(patient)
                else:
                    is_truncated = True
        progress.note(1, 1)
        return {**found, "truncated": is_truncated}

    def take_back(self, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """Puts single patients of the copy into the live shard, as they were then; all of them or none."""
        practice_id, wanted = uuid.UUID(arguments["practice_id"]), sorted(set(arguments["patients"]))
        pair = self.pair(practice_id, arguments["database"])
        with _both_open(pair) as (live, copy):
            table = _patients(live)
            if table.columns != _patients(copy).columns:
                raise DeedRefusedError("The copy and the shard are at different revisions: migrate the shard first.")
            rows = _rows(copy, table, wanted)
            known = {str(row[0]) for row in rows}
            if missing := [patient for patient in wanted if patient not in known]:
                raise DeedRefusedError(f"The copy has no such patient: {', '.join(missing[:10])}.")
            with live.cursor() as cursor:
                statement = _putting_back(table)
                for row in rows:
                    cursor.execute(statement, row)
            live.commit()
        progress.note(1, 1)
        _log.info("patients_taken_back", practice_id=str(practice_id), shard=str(pair.copy.name), patients=len(rows))
        return {"practice": str(practice_id), "database": pair.copy.database, "patients": wanted}


@contextlib.contextmanager
def _both_open(pair: Pair) -> Iterator[tuple[Session, Session]]:
    """Sessions at the live shard and at the copy. Raises DeedRefusedError for whatever a server says."""
    try:
        with (
            contextlib.closing(shard_copy.connect(pair.live_access, pair.shard.name.database)) as live,
            contextlib.closing(shard_copy.connect(pair.copy_access, pair.copy.database)) as copy,
        ):
            yield live, copy
    except psycopg2.Error as fault:
        raise DeedRefusedError(shard_migration.explain(fault)) from fault


def _patients(session: Session) -> Table:
    """Its first column is the id."""
    [table] = [table for table in shard_copy.tables(session) if table.name == PATIENTS]
    rest = [column for column in table.columns if column != "id"]
    return table._replace(columns=("id", *rest))


def _fingerprints(session: Session) -> Iterator[tuple[str, str]]:
    """Each patient's id and a hash of the row, in the order of ids, a portion at a time."""
    table = _patients(session)
    with session.cursor(name="fingerprints") as cursor:
        cursor.itersize = _PORTION
        cursor.execute(
            sql.SQL("SELECT id::text, md5(ROW({})::text) FROM {} ORDER BY id").format(
                table.column_list, table.identifier
            )
        )
        yield from cursor


def _differences(live: Iterator[tuple[str, str]], copy: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Walks both at once, in the order of ids: a UUID's text sorts as the UUID does."""
    here, there = next(live, None), next(copy, None)
    while here is not None or there is not None:
        if there is None or (here is not None and here[0] < there[0]):
            assert here
            yield "added", here[0]
            here = next(live, None)
        elif here is None or there[0] < here[0]:
            yield "removed", there[0]
            there = next(copy, None)
        else:
            if here[1] != there[1]:
                yield "changed", here[0]
            here, there = next(live, None), next(copy, None)


def _rows(session: Session, table: Table, ids: Sequence[str]) -> list[tuple[Any, ...]]:
    with session.cursor() as cursor:
        cursor.execute(
            sql.SQL("SELECT {} FROM {} WHERE id = ANY (%s::uuid[]) ORDER BY id").format(
                table.column_list, table.identifier
            ),
            (list(ids),),
        )
        return cursor.fetchall()


def _putting_back(table: Table) -> sql.Composed:
    """What a client knows of the live patient is outdated then: its version rises."""
    changes = [
        sql.SQL("version = greatest({0}.version, EXCLUDED.version) + 1").format(table.identifier)
        if column == "version"
        else sql.SQL("updated_at = now()")
        if column == "updated_at"
        else sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(column))
        for column in table.columns
        if column not in {"id", "created_at"}
    ]
    return sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}").format(
        table.identifier,
        table.column_list,
        sql.SQL(", ").join([sql.Placeholder()] * len(table.columns)),
        sql.SQL(", ").join(changes),
    )
