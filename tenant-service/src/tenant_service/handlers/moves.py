"""Practices move between servers: one by its id, or all that a server has."""

from fastapi import Response

from shared.models import problems
from tenant_service import draining, moving
from tenant_service.dependencies import JobBook, Mover, PracticeId, Provisioner, Registration
from tenant_service.handlers.servers import ServerKey
from tenant_service.handlers.shapes import OPERATE, admin_router, job_answer
from tenant_service.models.jobs import JobAnswer
from tenant_service.models.moves import MoveOrder

router = admin_router()


@router.post(
    "/practices/{practice_id}/move",
    status_code=202,
    summary="Move a practice to another server",
    dependencies=[OPERATE],
    responses={202: {"model": JobAnswer}, **problems(400, 401, 403, 404, 409, 415, 422, 503)},
)
def move_practice(
    practice_id: PracticeId, order: MoveOrder, mover: Mover, provisioning: Provisioner, jobs: JobBook
) -> Response:
    """Begins a job, or names the one that does the same. Its result: `{practice, from, to, rows, fence_ms, result}`.

    `result` is `moved`, or `rolled-back`: then the practice is where it was, and `reason` says why. While it moves,
    its calls are answered, or refused for a moment (503, Retry-After).
    """
    mover.check(provisioning, practice_id, order.to)
    job = jobs.add(moving.KIND, {"practice_id": str(practice_id), "to": order.to})
    return job_answer("The practice is being moved.", job)


@router.post(
    "/servers/{key}/evacuate",
    status_code=202,
    summary="Move everything off a drained server",
    dependencies=[OPERATE],
    responses={202: {"model": JobAnswer}, **problems(401, 403, 404, 409, 422, 503)},
)
def evacuate_server(key: ServerKey, registration: Registration, jobs: JobBook) -> Response:
    """Begins a job that moves each practice to the open server with most room; 409 unless the server is draining.

    Its result: `{server, moves}`, each as a single move's. What was interrupted goes on with what is left.
    """
    registration.require_draining(key)
    return job_answer("The server is being emptied.", jobs.add(draining.KIND, {"server": key}))
