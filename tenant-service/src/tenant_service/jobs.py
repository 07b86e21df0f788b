"""Jobs: deeds that outlast a request, and the process that began them.

Each replica takes one at a time, under a lock that its session on the central database holds for the job. A killed
process loses the lock with its session, and another replica, or the restarted process, does the job from its beginning:
a deed has to be such that this finds what is done and does what is left.
"""

import threading
import time
import uuid
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFreeError

from shared.ids import new_id
from shared.logs import describe_fault, get_logger
from tenant_service.central import Lock, locked_by_session
from tenant_service.exceptions import DeedPostponedError, DeedRefusedError, JobUnderWayError, JobUnknownError
from tenant_service.recording import Operation, note
from tenant_service.storage import jobs as storage
from tenant_service.storage.jobs import UNFINISHED, Job

PROGRESS_EVERY_S = 0.5
_LOST = (OperationalError, InterfaceError, NoConnectionFreeError)
"""The central database is away: the job isn't over. A deed deals with the faults of shard servers itself."""
_log = get_logger()


class StoppingError(Exception):
    """The process ends: the deed is to be left as it is."""


class Progress:
    """Where a deed says how far it is."""

    def __init__(self, connection: Connection, job_id: uuid.UUID, stopping: threading.Event) -> None:
        self._connection = connection
        self.job_id = job_id
        self._stopping = stopping
        self._noted_at = float("-inf")

    def note(self, done: int, total: int) -> None:
        """So many of so many are done. Raises StoppingError, and OperationalError when the job's lock is lost."""
        self.keep_going()
        if time.monotonic() - self._noted_at >= PROGRESS_EVERY_S or done == total:
            storage.note_progress(self._connection, self.job_id, done=done, total=total)
            self._noted_at = time.monotonic()

    def keep_going(self) -> None:
        """Raises StoppingError when the process ends."""
        if self._stopping.is_set():
            raise StoppingError


Deed = Callable[[Mapping[str, Any], Progress], Any]
"""Does a job of these arguments; what it returns, as JSON, is the job's result."""


class Jobs:
    """Adds, finds and does jobs. One of each kind is unfinished at a time, or one of each kind for each practice."""

    def __init__(self, engine: Engine, deeds: Mapping[str, Deed], *, before_each: Callable[[], object]) -> None:
        """`before_each` lets a process that has just begun learn what its deeds rely on."""
        self._engine = engine
        self._deeds = deeds
        self._before_each = before_each
        self._stopping = threading.Event()

    def add(self, kind: str, arguments: Mapping[str, Any]) -> Job:
        """A new job, or the unfinished one that is the same. Raises JobUnderWayError when it has other arguments."""
        with self._engine.begin() as connection:
            storage.lock_kinds(connection)
            job = storage.unfinished_of_kind(connection, kind, practice_id=arguments.get("practice_id"))
            if job is None:
                job_id = new_id()
                storage.insert_job(connection, kind, arguments, job_id=job_id)
                job = storage.find_job(connection, job_id)
                assert job
                note(
                    connection,
                    Operation.JOB_ASKED,
                    practice_id=_practice_of(job),
                    target=str(job.id),
                    detail={"kind": kind, **arguments},
                )
        if job.arguments != arguments:
            raise JobUnderWayError(f"Job {job.id} is not finished, and has other arguments.")
        return job

    def find(self, job_id: uuid.UUID) -> Job:
        """The job. Raises JobUnknownError."""
        with self._engine.begin() as connection:
            job = storage.find_job(connection, job_id)
        if job is None:
            raise JobUnknownError
        return job

    def do_waiting(self) -> bool:
        """Does every unfinished job that nobody else is at; runs in the background. Raises what `_LOST` lists."""
        with self._engine.begin() as connection:
            unfinished = storage.unfinished_jobs(connection)
        for job in unfinished:
            if job.kind in self._deeds and not self._stopping.is_set():  # another release's jobs are left to it
                self._do(job.id)
        return True

    def _do(self, job_id: uuid.UUID) -> None:
        with locked_by_session(self._engine, Lock.JOBS, zlib.crc32(job_id.bytes) - 2**31) as connection:
            if connection is None:
                return
            job = storage.find_job(connection, job_id)
            if job is None or job.state not in UNFINISHED:
                return  # finished meanwhile
            _log.info("job_begins", job=str(job.id), kind=job.kind, state=job.state)
            try:
                self._before_each()
                result = self._deeds[job.kind](job.arguments, Progress(connection, job.id, self._stopping))
            except StoppingError:
                return
            except _LOST:
                raise
            except DeedPostponedError as fault:
                _log.warning("job_postponed", job=str(job.id), **describe_fault(fault.__cause__ or fault))
                return
            except DeedRefusedError as fault:
                _log.warning("job_refused", job=str(job.id), reason=str(fault))
                self._finish(connection, job, error=str(fault))
            except Exception as fault:  # noqa: BLE001 - whatever it is, it would be so again
                _log.error("job_failed", job=str(job.id), **describe_fault(fault))
                self._finish(connection, job, error=f"It failed unexpectedly: {type(fault).__name__}.")
            else:
                self._finish(connection, job, result=result)
            _log.info("job_ended", job=str(job.id))
            storage.prune_jobs(connection)

    def _finish(self, connection: Connection, job: Job, *, result: Any = None, error: str | None = None) -> None:
        """Ends it through the session that holds its lock, which fails when the lock is lost; then notes it."""
        storage.finish_job(connection, job.id, result=result, error=error)
        is_success = error is None and not (isinstance(result, Mapping) and result.get("result") == "rolled-back")
        detail = {"kind": job.kind} | ({"error": error} if error else {})
        note(
            connection,
            Operation.JOB_ENDED,
            practice_id=_practice_of(job),
            target=str(job.id),
            is_success=is_success,
            detail=detail,
        )

    def stop(self) -> None:
        """Lets the running deed end at its next step; the job goes on in another process."""
        self._stopping.set()


def _practice_of(job: Job) -> uuid.UUID | None:
    practice_id = job.arguments.get("practice_id")
    return uuid.UUID(practice_id) if practice_id else None
