"""Backups and copies of a practice: taken, restored, compared, swapped, taken back from, dropped."""

from typing import Annotated

from fastapi import Path, Response

from shared.envelope import success
from shared.models import Success, problems
from tenant_service import backing_up, comparing, restoring, swapping
from tenant_service.dependencies import Central, JobBook, Keeping, PracticeId, Provisioner
from tenant_service.handlers.shapes import OPERATE, admin_router, job_answer
from tenant_service.models.copies import (
    BackupItem,
    BackupOrder,
    BackupsAnswer,
    CopiesAnswer,
    CopyItem,
    RestoreOrder,
    TakeBackOrder,
)
from tenant_service.models.jobs import JobAnswer
from tenant_service.storage import backups, copies

router = admin_router()
Database = Annotated[str, Path(pattern=r"^shard_[0-9a-z]{1,50}$", description="The copy's database.")]
_JOB = {202: {"model": JobAnswer}, **problems(400, 401, 403, 404, 409, 415, 422, 503)}
_COPY = "/practices/{practice_id}/copies/{database}"


@router.post(
    "/practices/{practice_id}/backup",
    status_code=202,
    summary="Back up a practice",
    dependencies=[OPERATE],
    responses=_JOB,
)
def back_up(practice_id: PracticeId, order: BackupOrder, provisioning: Provisioner, jobs: JobBook) -> Response:
    """Begins a job: a consistent, compressed and encrypted file, while everybody works.

    Its result: `{practice, path, sha256, taken_at, rows}`.
    """
    provisioning.find(practice_id)
    job = jobs.add(backing_up.KIND, {"practice_id": str(practice_id), "to": order.to})
    return job_answer("The practice is being backed up.", job)


@router.get(
    "/practices/{practice_id}/backups",
    summary="List a practice's backups",
    responses={200: {"model": BackupsAnswer}, **problems(401, 403, 422, 503)},
)
def list_backups(practice_id: PracticeId, central: Central) -> Response:
    """Files that were written and not removed by rule, the newest first."""
    with central.begin() as connection:
        found = backups.backups_of(connection, practice_id)
    data = [BackupItem.model_validate(one, from_attributes=True).model_dump(mode="json") for one in found]
    return success("Backups fetched successfully!", {"data": data})


@router.post("/backups/restore", status_code=202, summary="Restore a backup", dependencies=[OPERATE], responses=_JOB)
def restore(order: RestoreOrder, jobs: JobBook) -> Response:
    """Begins a job that makes a copy beside the live shard, which stays as it is.

    Its result: `{practice, database, rows}`.
    """
    return job_answer("The backup is being restored.", jobs.add(restoring.KIND, {"path": order.path}))


@router.get(
    "/practices/{practice_id}/copies",
    summary="List a practice's copies",
    responses={200: {"model": CopiesAnswer}, **problems(401, 403, 422, 503)},
)
def list_copies(practice_id: PracticeId, central: Central) -> Response:
    """Databases with the practice's data that nobody but the platform can reach, the oldest first."""
    with central.begin() as connection:
        found = copies.copies_of(connection, practice_id)
    data = [CopyItem.model_validate(one, from_attributes=True).model_dump(mode="json") for one in found]
    return success("Copies fetched successfully!", {"data": data})


@router.post(
    f"{_COPY}/diff",
    status_code=202,
    summary="Compare a copy with the live shard",
    dependencies=[OPERATE],
    responses=_JOB,
)
def diff(practice_id: PracticeId, database: Database, keeping: Keeping, jobs: JobBook) -> Response:
    """Begins a job. Its result: ids of patients as `{added, removed, changed}`, seen from the copy."""
    keeping.require(practice_id, database)
    order = {"practice_id": str(practice_id), "database": database}
    return job_answer("The copy is being compared.", jobs.add(comparing.DIFF_KIND, order))


@router.post(
    f"{_COPY}/swap",
    status_code=202,
    summary="Put a copy in the live shard's place",
    dependencies=[OPERATE],
    responses=_JOB,
)
def swap(practice_id: PracticeId, database: Database, keeping: Keeping, jobs: JobBook) -> Response:
    """Begins a job; what was live becomes the copy of this name. Its result: `{practice, database, rows}`."""
    keeping.require(practice_id, database)
    order = {"practice_id": str(practice_id), "database": database}
    return job_answer("The copy is being swapped.", jobs.add(swapping.KIND, order))


@router.post(
    f"{_COPY}/take-back",
    status_code=202,
    summary="Take single patients back from a copy",
    dependencies=[OPERATE],
    responses=_JOB,
)
def take_back(
    practice_id: PracticeId, database: Database, order: TakeBackOrder, keeping: Keeping, jobs: JobBook
) -> Response:
    """Begins a job: they get as they are in the copy. Its result: `{practice, database, patients}`."""
    keeping.require(practice_id, database)
    wanted = {"practice_id": str(practice_id), "database": database, "patients": [str(one) for one in order.patients]}
    return job_answer("The patients are being taken back.", jobs.add(comparing.TAKE_BACK_KIND, wanted))


@router.delete(
    _COPY,
    summary="Drop a copy",
    dependencies=[OPERATE],
    responses={200: {"model": Success}, **problems(401, 403, 404, 422, 503)},
)
def drop(practice_id: PracticeId, database: Database, keeping: Keeping) -> Response:
    """Its database goes at once, before its time is over. The live shard is not touched."""
    keeping.drop(practice_id, database)
    return success("Copy dropped successfully!")
