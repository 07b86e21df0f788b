"""What a practice takes with it: its patients as CSV and JSON, and the audit of its accounts, in one archive."""

import contextlib
import uuid
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import orjson
from psycopg2 import sql
from sqlalchemy import Engine

from shared.logs import get_logger
from tenant_service import shard_copy
from tenant_service.backing_up import new_file
from tenant_service.exceptions import ExportRefusedError, ShardUnknownError
from tenant_service.servers import ServerRegistry
from tenant_service.shard_copy import Session, Table
from tenant_service.storage import directory
from tenant_service.storage.directory import ShardState

_PORTION = 2_000
_log = get_logger()


class Exporting:
    """Blocking; safe to share among threads and replicas."""

    def __init__(self, engine: Engine, servers: ServerRegistry) -> None:
        self._engine = engine
        self._servers = servers

    def export(
        self, practice_id: uuid.UUID, folder: Path, *, practice: dict[str, Any], audit: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        """Writes the archive, for its owner alone; `{path, rows}`. Deleted patients are in it, marked as such.

        Raises ShardUnknownError, ExportRefusedError, and what servers.FAULTS lists.
        """
        with self._engine.begin() as connection:
            shard = directory.find_shard(connection, practice_id)
        if shard is None or shard.state is not ShardState.READY:
            raise ShardUnknownError
        path = folder / f"{practice_id}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z-export.zip"
        access = self._servers.admin(shard.name.server).access
        try:
            with (
                contextlib.closing(shard_copy.connect(access, shard.name.database)) as session,
                new_file(path) as file,
                zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive,
            ):
                shard_copy.begin_snapshot(session)
                rows = sum(_add_table(archive, session, table) for table in shard_copy.tables(session))
                for name, document in (("practice.json", practice), ("audit.json", list(audit))):
                    archive.writestr(name, orjson.dumps(document, option=orjson.OPT_INDENT_2))
        except OSError as fault:
            raise ExportRefusedError(f"{folder} can't be written to: {fault.strerror or fault}.") from fault
        _log.info("practice_exported", practice_id=str(practice_id), rows=rows)
        return {"path": str(path), "rows": rows}


def _add_table(archive: zipfile.ZipFile, session: Session, table: Table) -> int:
    """As CSV and as JSON, in the same order; how many rows."""
    key = sql.SQL(", ").join(map(sql.Identifier, table.key))
    with archive.open(f"{table.name}.csv", "w", force_zip64=True) as entry, session.cursor() as cursor:
        query = sql.SQL("COPY (SELECT {} FROM {} ORDER BY {}) TO STDOUT WITH (FORMAT csv, HEADER)")
        cursor.copy_expert(query.format(table.column_list, table.identifier, key).as_string(session), entry)
    with archive.open(f"{table.name}.json", "w", force_zip64=True) as entry:
        return _write_json(entry, session, table, key)


def _write_json(entry: IO[bytes], session: Session, table: Table, key: sql.Composed) -> int:
    count = 0
    with session.cursor(name="exported") as cursor:
        cursor.itersize = _PORTION
        cursor.execute(
            sql.SQL("SELECT row_to_json(t)::text FROM (SELECT {} FROM {} ORDER BY {}) t").format(
                table.column_list, table.identifier, key
            )
        )
        entry.write(b"[")
        for count, (row,) in enumerate(cursor, start=1):
            entry.write((b",\n" if count > 1 else b"\n") + row.encode())
        entry.write(b"\n]\n")
    return count
