"""The fleet of shards: where each is, how far, whether isolated, and the migration of all."""

from typing import Annotated, Any

from fastapi import Query, Request, Response

from shared.cursor import DEFAULT_LIMIT, CursorText, Limit
from shared.envelope import success
from shared.models import problems
from tenant_service import fleet_migration, listing
from tenant_service.dependencies import Central, Isolating, JobBook, JobId, PracticeId, Status
from tenant_service.handlers.shapes import OPERATE, admin_router, job_answer, job_document, page_answer
from tenant_service.isolation import MOST_PRACTICES, Report
from tenant_service.models.jobs import JobAnswer
from tenant_service.models.shards import IsolationAnswer, MigrationOrder, ShardsAnswer, StatusAnswer
from tenant_service.storage.directory import ShardState

MOST_LOOKS = 100
"""Of shards on a page: see fleet_status.PAGE_S."""
ISOLATION_CHECKED = "Isolation checked successfully!"
StatusLimit = Annotated[int, Query(ge=1, le=MOST_LOOKS, description="Shards on a page.")]

router = admin_router()


@router.get(
    "/shards",
    summary="List the directory",
    responses={200: {"model": ShardsAnswer}, **problems(400, 401, 403, 422, 503)},
)
def list_shards(
    request: Request,
    central: Central,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
    state: Annotated[ShardState | None, Query(description="Only rows in this state.")] = None,
) -> Response:
    """Where each practice's data is, in the order of practice ids."""
    page = listing.page_of_shards(central, state=state, limit=limit, cursor=cursor)
    result: dict[str, Any] = {"data": [row._asdict() for row in page.rows]}
    return page_answer(request, result, next_cursor=page.next_cursor, limit=limit)


@router.get(
    "/shards/status",
    summary="Look at the shards themselves",
    responses={200: {"model": StatusAnswer}, **problems(400, 401, 403, 422, 503)},
)
def show_status(
    request: Request, status: Status, limit: StatusLimit = MOST_LOOKS, cursor: CursorText = None
) -> Response:
    """How far each shard is and whether it is what it should be. A page may be shorter than asked for."""
    page = status.page(limit=limit, cursor=cursor)
    result = {"head": page.head, "data": [row.model_dump(mode="json") for row in page.rows]}
    return page_answer(request, result, next_cursor=page.next_cursor, limit=limit)


@router.post(
    "/shards/migrate",
    status_code=202,
    summary="Migrate every shard to the newest revision",
    dependencies=[OPERATE],
    responses={202: {"model": JobAnswer}, **problems(400, 401, 403, 409, 422, 503)},
)
def migrate_shards(order: MigrationOrder, jobs: JobBook) -> Response:
    """Begins a job, or names the one that is doing the same."""
    job = jobs.add(fleet_migration.KIND, order.model_dump())
    return job_answer("The shards are being migrated.", job)


@router.get(
    "/jobs/{job_id}", summary="Show a job", responses={200: {"model": JobAnswer}, **problems(401, 403, 404, 422, 503)}
)
def show_job(job_id: JobId, jobs: JobBook) -> Response:
    """How far the job is, and what it led to."""
    return success("Job fetched successfully!", job_document(jobs.find(job_id)))


@router.get(
    "/isolation",
    summary="Prove the isolation",
    responses={200: {"model": IsolationAnswer}, **problems(400, 401, 403, 404, 422, 503)},
)
def show_isolation(
    request: Request,
    isolation: Isolating,
    practice_id: Annotated[PracticeId | None, Query(description="Of this practice only.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_PRACTICES, description="At most; a page also ends by time.")] = 20,
    cursor: CursorText = None,
) -> Response:
    """Of each practice: what its server says of its database and role, and where the role really gets in."""
    if practice_id is not None:
        result: dict[str, Any] = {"data": [_report_document(isolation.of_practice(practice_id))], "total": 1}
        return success(ISOLATION_CHECKED, result)
    page = isolation.page(limit=limit, cursor=cursor)
    result = {"data": [_report_document(report) for report in page.reports], "total": page.total}
    return page_answer(request, result, next_cursor=page.next_cursor, limit=limit, message=ISOLATION_CHECKED)


def _report_document(report: Report) -> dict[str, Any]:
    return {"id": str(report.practice_id), "checks": [check._asdict() for check in report.checks]}
