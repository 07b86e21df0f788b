"""One question to every shard: each is asked as its own role, in a transaction that can't write, until a deadline.

A practice's role reaches its own database alone and owns nothing, so whatever the question is, no answer holds more
than one practice's rows, and none changes them. Who didn't answer is told as well as who did.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg2
from sqlalchemy import Engine

from shared.logs import get_logger
from shared.shards import PRACTICE_STAMP, shard_password
from tenant_service.exceptions import DeedRefusedError, ShardServerUnavailableError
from tenant_service.jobs import Progress
from tenant_service.server_admin import KEEPALIVE_OPTIONS, Access
from tenant_service.servers import ServerRegistry
from tenant_service.shard_migration import explain
from tenant_service.single_query import QueryRefusedError, check
from tenant_service.storage import directory
from tenant_service.storage.directory import Shard

KIND = "fleet-query"
WORKERS = 4
"""For each server."""
MOST_ROWS = 10_000
MOST_ROWS_EACH = 1_000
MOST_CHARACTERS = 1_000
_WRONG_PASSWORD = "28P01"  # noqa: S105 - an SQLSTATE
_LATE = "It was not asked before the deadline."
_log = get_logger()


class Answer(NamedTuple):
    """What a shard said: its rows, or why there are none."""

    shard: Shard
    revision: str | None
    rows: Sequence[Mapping[str, Any]]
    is_truncated: bool = False
    error: str | None = None


class FleetQuery:
    """The deed of the jobs of this kind. Blocking; safe to share among threads and replicas."""

    def __init__(self, engine: Engine, servers: ServerRegistry, *, shard_keys: Sequence[bytes]) -> None:
        self._engine = engine
        self._servers = servers
        self._shard_keys = shard_keys

    def run(self, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """Asks all: `{rows, answered, failed, manifest, truncated, deadline_s}`. Raises DeedRefusedError."""
        query, deadline_s = str(arguments["query"]), float(arguments["deadline_s"])
        try:
            check(query)
        except QueryRefusedError as fault:
            raise DeedRefusedError(str(fault)) from fault
        with self._engine.begin() as connection:
            shards = directory.ready_shards(connection)
        answers = self._ask_all(shards, query, time.monotonic() + deadline_s, progress)
        rows = [row for answer in answers for row in answer.rows]
        failed = [answer for answer in answers if answer.error is not None]
        _log.info("fleet_queried", shards=len(shards), failed=len(failed), rows=len(rows))
        return {
            "rows": rows[:MOST_ROWS],
            "answered": [str(answer.shard.practice_id) for answer in answers if answer.error is None],
            "failed": [str(answer.shard.practice_id) for answer in failed],
            "manifest": [_manifest_row(answer) for answer in answers],
            "truncated": len(rows) > MOST_ROWS or any(answer.is_truncated for answer in answers),
            "deadline_s": deadline_s,
        }

    def _ask_all(self, shards: Sequence[Shard], query: str, end: float, progress: Progress) -> list[Answer]:
        """Each server by threads of its own, in the order of practices."""
        found: list[Answer] = []
        with contextlib.ExitStack() as stack:
            keys = sorted({shard.name.server for shard in shards})
            threads = {key: stack.enter_context(ThreadPoolExecutor(WORKERS, f"asking {key}")) for key in keys}
            futures: list[Future[Answer]] = [
                threads[shard.name.server].submit(self._ask, shard, query, end) for shard in shards
            ]
            try:
                for count, future in enumerate(as_completed(futures), start=1):
                    found.append(future.result())
                    progress.note(count, len(shards))
            finally:
                for future in futures:
                    future.cancel()
        return sorted(found, key=lambda answer: answer.shard.practice_id)

    def _ask(self, shard: Shard, query: str, end: float) -> Answer:
        if shard.fence is not None:
            return Answer(shard, shard.revision, (), error=f"It is fenced: {shard.fence}.")
        left_s = end - time.monotonic()
        if left_s <= 0:
            return Answer(shard, shard.revision, (), error=_LATE)
        try:
            with self._session(shard, left_s) as session:
                return _answered(session, shard, query)
        except (psycopg2.Error, ShardServerUnavailableError) as fault:
            told = explain(fault) if isinstance(fault, psycopg2.Error) else str(fault)
            return Answer(shard, shard.revision, (), error=told)

    @contextlib.contextmanager
    def _session(self, shard: Shard, left_s: float) -> Iterator[psycopg2.extensions.connection]:
        """A session of the shard's own role whose transactions can't write and whose statements end in time."""
        server, database = shard.name
        place = self._servers.admin(server).access
        options = (
            f"-c statement_timeout={max(1, int(left_s * 1000))} -c lock_timeout=1s -c default_transaction_read_only=on"
            f" -c standard_conforming_strings=on -c TimeZone=UTC {KEEPALIVE_OPTIONS}"
        )
        with contextlib.closing(self._connect(place, database, options)) as session:
            session.set_session(isolation_level="REPEATABLE READ", readonly=True)
            yield session

    def _connect(self, place: Access, database: str, options: str) -> psycopg2.extensions.connection:
        refused = None
        for key in self._shard_keys:
            access = place._replace(user=database, password=shard_password(key, database))
            try:
                return access.connect(database, options=options, require_auth="scram-sha-256")
            except psycopg2.OperationalError as fault:
                refused = fault
                if "password authentication failed" not in str(fault):
                    raise
        assert refused
        raise refused


def _answered(session: psycopg2.extensions.connection, shard: Shard, query: str) -> Answer:
    with session.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting(%s, true), (SELECT min(version_num) FROM public.alembic_version)",
            (PRACTICE_STAMP,),
        )
        ((stamp, revision),) = cursor.fetchall()
    if stamp != str(shard.practice_id):
        return Answer(shard, revision, (), error="Its database bears another stamp.")
    with session.cursor(name="question") as cursor:
        cursor.execute(query)  # without parameters, so that a percent sign is one
        rows = cursor.fetchmany(MOST_ROWS_EACH + 1)
        columns = [column.name for column in cursor.description or ()]
    session.rollback()
    names = ("practice_id", *columns)
    shown = [
        dict(zip(names, (str(shard.practice_id), *map(_plain, row)), strict=True)) for row in rows[:MOST_ROWS_EACH]
    ]
    return Answer(shard, revision, shown, is_truncated=len(rows) > MOST_ROWS_EACH)


def _plain(value: Any) -> Any:
    """As JSON has it; what is long is cut off."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Decimal):
        return str(value)
    text = value.isoformat() if isinstance(value, date | datetime) else str(value)
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "…"


def _manifest_row(answer: Answer) -> dict[str, Any]:
    shard = answer.shard
    return {
        "practice_id": str(shard.practice_id),
        "server": shard.name.server,
        "database": shard.name.database,
        "revision": answer.revision,
        "rows": len(answer.rows),
        "error": answer.error,
    }
