"""Questions to the whole fleet."""

from fastapi import Response

from shared.models import problems
from tenant_service import fleet_query
from tenant_service.dependencies import JobBook
from tenant_service.handlers.shapes import OPERATE, admin_router, job_answer
from tenant_service.models.fleet import QueryOrder
from tenant_service.models.jobs import JobAnswer

router = admin_router()


@router.post(
    "/fleet/query",
    status_code=202,
    summary="Ask every shard",
    dependencies=[OPERATE],
    responses={202: {"model": JobAnswer}, **problems(400, 401, 403, 409, 415, 422, 503)},
)
def query(order: QueryOrder, jobs: JobBook) -> Response:
    """Begins a job that asks each practice's shard, as the practice's own role and without writing.

    Its result: `{rows, answered, failed, manifest, truncated, deadline_s}`. The question is in the record of operations
    before it is asked.
    """
    return job_answer("The fleet is being asked.", jobs.add(fleet_query.KIND, order.model_dump()))
