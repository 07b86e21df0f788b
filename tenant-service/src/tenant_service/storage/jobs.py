"""Deeds that take longer than a request may, and how far each is."""

import uuid
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, delete, func, insert, null, select, update

from tenant_service.central import Lock
from tenant_service.schema import jobs

FINISHED_KEPT = timedelta(days=7)


class JobState(StrEnum):
    """`waiting` → `running` → `done` or `failed`. What is `running` may have lost its process, and goes on then."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


UNFINISHED = (JobState.WAITING, JobState.RUNNING)


class Job(NamedTuple):
    """A deed: what is to be done, how much of it is done (in units of its own), and what it led to."""

    id: uuid.UUID
    kind: str
    arguments: Mapping[str, Any]
    state: JobState
    done: int
    total: int | None
    result: Any
    error: str | None


_JOB = tuple(jobs.c[name] for name in Job._fields)


def _job(row: Row[*tuple[Any, ...]]) -> Job:
    return Job(*row)._replace(state=JobState(row.state))


def lock_kinds(connection: Connection) -> None:
    """Nobody else adds a job until this transaction ends."""
    connection.execute(select(func.pg_advisory_xact_lock(Lock.JOBS, 0)))


def insert_job(connection: Connection, kind: str, arguments: Mapping[str, Any], *, job_id: uuid.UUID) -> None:
    """Adds a job that waits."""
    connection.execute(insert(jobs).values(id=job_id, kind=kind, arguments=arguments))


def find_job(connection: Connection, job_id: uuid.UUID) -> Job | None:
    """The job."""
    row = connection.execute(select(*_JOB).where(jobs.c.id == job_id)).one_or_none()
    return _job(row) if row else None


def unfinished_jobs(connection: Connection) -> list[Job]:
    """What waits or runs, the oldest first."""
    return _found(connection, select(*_JOB))


def unfinished_of_kind(connection: Connection, kind: str, *, practice_id: str | None = None) -> Job | None:
    """The job of this kind that waits or runs: of those about this practice, if it is about one."""
    query = select(*_JOB).where(jobs.c.kind == kind)
    if practice_id is not None:
        query = query.where(jobs.c.arguments["practice_id"].astext == practice_id)
    return next(iter(_found(connection, query)), None)


def _found(connection: Connection, query: Select[*tuple[Any, ...]]) -> list[Job]:
    unfinished = query.where(jobs.c.state.in_(UNFINISHED)).order_by(jobs.c.created_at)
    return [_job(row) for row in connection.execute(unfinished)]


def note_progress(connection: Connection, job_id: uuid.UUID, *, done: int, total: int | None) -> None:
    """The job runs, and is so far."""
    _change(connection, job_id, state=JobState.RUNNING, done=done, total=total)


def finish_job(connection: Connection, job_id: uuid.UUID, *, result: Any = None, error: str | None = None) -> None:
    """The job has ended: with a result, or with an error."""
    state = JobState.FAILED if error else JobState.DONE
    _change(connection, job_id, state=state, result=null() if result is None else result, error=error)


def _change(connection: Connection, job_id: uuid.UUID, **values: Any) -> None:
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(updated_at=func.now(), **values))


def prune_jobs(connection: Connection) -> None:
    """Deletes what ended long ago."""
    ended = jobs.c.state.not_in(UNFINISHED)
    connection.execute(delete(jobs).where(ended, jobs.c.updated_at < func.now() - FINISHED_KEPT))
