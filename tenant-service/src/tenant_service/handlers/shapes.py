"""What several doors share: their routers, and the answers that look alike."""

from typing import Any

import orjson
from fastapi import APIRouter, Depends, Request, Response

from shared.app import CallerDep, requires
from shared.envelope import success
from shared.roles import Permission, demand
from tenant_service.models.jobs import JobItem
from tenant_service.recording import Origin, origin
from tenant_service.storage.jobs import Job

ADMIN_PATH = "/api/v1/admin"


async def _operate(request: Request, caller: CallerDep) -> None:
    """403 unless the caller may change something; what is noted knows then where the call comes from."""
    demand(caller, Permission.PLATFORM_OPERATE)
    origin.set(Origin(caller.client_address, str(request.scope["state"]["request_id"])))


OPERATE = Depends(_operate)


def admin_router() -> APIRouter:
    """Routes of the platform's admin; what changes something demands OPERATE besides."""
    return APIRouter(prefix=ADMIN_PATH, dependencies=[requires(Permission.PLATFORM_READ)], tags=["admin"])


def json_answer(document: Any, *, status: int = 200) -> Response:
    """A document for services, without the envelope."""
    return Response(orjson.dumps(document), status_code=status, media_type="application/json")


def page_answer(
    request: Request,
    result: dict[str, Any],
    *,
    next_cursor: str | None,
    limit: int,
    message: str = "Shards fetched successfully!",
) -> Response:
    """A page of a list, and where the next one is."""
    if next_cursor is None:
        return success(message, result)
    result["next_cursor"] = next_cursor
    following = request.url.include_query_params(cursor=next_cursor, limit=limit)
    return success(message, result, Link=f'<{following.path}?{following.query}>; rel="next"')


def job_answer(message: str, job: Job) -> Response:
    """A job that goes on after this answer: 202, and where it can be watched."""
    return success(message, job_document(job), status=202, Location=f"{ADMIN_PATH}/jobs/{job.id}")


def job_document(job: Job) -> dict[str, Any]:
    """A job as it is shown."""
    return JobItem.model_validate(job, from_attributes=True).model_dump(mode="json")
