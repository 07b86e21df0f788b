"""The door: parse, call a rule, shape the answer. `/internal` is for services, `/api/v1/admin` for the platform."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from shared.app import requires, service_only
from shared.changes import changes_answer
from shared.cursor import DEFAULT_LIMIT, CursorText, Limit
from shared.envelope import success
from shared.models import Success, problems
from shared.roles import Permission
from tenant_service import fleet_migration, listing
from tenant_service.config import SERVER_KEY
from tenant_service.dependencies import (
    Central,
    Claimed,
    Isolating,
    JobBook,
    JobId,
    MakingSlots,
    PracticeId,
    Provisioner,
    Registration,
    Servers,
    Status,
    UndoingSlots,
)
from tenant_service.isolation import MOST_PRACTICES, Report
from tenant_service.models import (
    IsolationAnswer,
    JobAnswer,
    JobItem,
    MigrationOrder,
    ServerAnswer,
    ServerBody,
    ServersAnswer,
    ShardsAnswer,
    StatusAnswer,
)
from tenant_service.storage.directory import Shard, ShardState
from tenant_service.storage.jobs import Job
from tenant_service.storage.registry import Server

MOST_LOOKS = 100
"""Of shards on a page: see fleet_status.PAGE_S."""
JOBS_PATH = "/api/v1/admin/jobs"
StatusLimit = Annotated[int, Query(ge=1, le=MOST_LOOKS, description="Shards on a page.")]

internal = APIRouter(prefix="/internal", dependencies=[Depends(service_only)], include_in_schema=False)
admin = APIRouter(prefix="/api/v1/admin", dependencies=[requires(Permission.PLATFORM_READ)], tags=["admin"])
operate = requires(Permission.PLATFORM_OPERATE)
ISOLATION_CHECKED = "Isolation checked successfully!"
ServerKey = Annotated[str, Path(pattern=rf"^{SERVER_KEY}$", description="The server's key.")]


def _json(document: Any, *, status: int = 200) -> Response:
    return Response(orjson.dumps(document), status_code=status, media_type="application/json")


def _shard_document(shard: Shard) -> dict[str, str | None]:
    return {
        "practice_id": str(shard.practice_id),
        "shard": str(shard.name) if shard.database else None,
        "database": shard.database,
        "state": shard.state,
    }


@internal.put("/shards/{practice_id}")
async def put_shard(
    practice_id: PracticeId, provisioning: Provisioner, slots: MakingSlots, claimed: Claimed
) -> Response:
    """Ensure the practice's shard: 201 when it was made now, 200 when it was there, 409 when it was undone."""
    shard, made = await slots.run(provisioning.ensure, practice_id)
    if made:
        claimed.set()
    return _json(_shard_document(shard), status=201 if made else 200)


@internal.get("/shards/{practice_id}")
def get_shard(practice_id: PracticeId, provisioning: Provisioner) -> Response:
    """Tell where the practice's shard is: 404 when it has none, 503 while it can't be used."""
    return _json(_shard_document(provisioning.find(practice_id)))


@internal.delete("/shards/{practice_id}")
async def delete_shard(practice_id: PracticeId, provisioning: Provisioner, slots: UndoingSlots) -> Response:
    """Undo a sign-up's shard. The state in the answer is `undone`, or `quarantined` when it was kept."""
    return _json(_shard_document(await slots.run(provisioning.release, practice_id)))


@internal.get("/servers")
def get_servers(central: Central) -> Response:
    """Tell where the shard servers are."""
    shown = ("key", "host", "port", "sslmode", "sslrootcert", "max_connections")
    servers = listing.known_servers(central)
    return _json({"servers": [{name: getattr(server, name) for name in shown} for server in servers]})


@internal.get("/changes")
def get_changes(central: Central, after: Annotated[int | None, Query(ge=0, le=2**63 - 1)] = None) -> Response:
    """Tell what a cached answer of this directory must not survive."""
    news = listing.news(central, after)
    changes = (
        {"seq": row["seq"], "kind": row["kind"], "practice_id": str(row["practice_id"]), "session_id": None}
        for row in news.rows
    )
    return changes_answer(changes, last=news.last, is_reset=news.reset)


@admin.get(
    "/servers", summary="List the shard servers", responses={200: {"model": ServersAnswer}, **problems(401, 403, 503)}
)
def list_servers(central: Central, servers: Servers) -> Response:
    """Every shard server with its load."""
    data = [_server_document(server, servers) for server in listing.known_servers(central)]
    return success("Shard servers fetched successfully!", {"data": data})


def _server_document(server: Server, servers: Servers) -> dict[str, Any]:
    shown = ("key", "host", "port", "state", "practices", "capacity")
    return {name: getattr(server, name) for name in shown} | {"connections": servers.connections(server.key)}


@admin.post(
    "/servers",
    summary="Add a shard server",
    dependencies=[operate],
    status_code=201,
    responses={
        201: {"model": ServerAnswer},
        200: {"model": ServerAnswer},
        **problems(400, 401, 403, 409, 415, 422, 503),
    },
)
def add_server(body: ServerBody, registration: Registration, servers: Servers) -> Response:
    """Checks the server, makes the template there, and takes practices on it from then on.

    The admin's credentials come from SERVER_<KEY>_USER and SERVER_<KEY>_PASS (or _FILE) of tenant-service, else DB_USER
    and DB_PASS. 201 when it is new; 200 when it was known: then its capacity or its TLS may have changed. 409 when the
    key or the place is another server's; 422 names every fault that keeps it from holding shards.
    """
    server, is_new = registration.add(**body.model_dump())
    message = "Shard server added successfully!" if is_new else "Shard server updated successfully!"
    return success(message, _server_document(server, servers), status=201 if is_new else 200)


@admin.post(
    "/servers/{key}/drain",
    summary="Drain a shard server",
    dependencies=[operate],
    responses={200: {"model": ServerAnswer}, **problems(401, 403, 404, 422, 503)},
)
def drain_server(key: ServerKey, registration: Registration, servers: Servers) -> Response:
    """It takes no new practices from then on; those it has go on as before."""
    return success("Shard server drained successfully!", _server_document(registration.drain(key), servers))


@admin.post(
    "/servers/{key}/open",
    summary="Open a drained shard server",
    dependencies=[operate],
    responses={200: {"model": ServerAnswer}, **problems(401, 403, 404, 422, 503)},
)
def open_server(key: ServerKey, registration: Registration, servers: Servers) -> Response:
    """It takes new practices again."""
    return success("Shard server opened successfully!", _server_document(registration.open(key), servers))


@admin.delete(
    "/servers/{key}",
    summary="Remove a shard server",
    dependencies=[operate],
    responses={200: {"model": Success}, **problems(401, 403, 404, 409, 422, 503)},
)
def remove_server(key: ServerKey, registration: Registration) -> Response:
    """Forgets a drained server that holds nothing; 409 while it does. What it is stays as it is."""
    registration.remove(key)
    return success("Shard server removed successfully!")


@admin.get(
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
    return _page_answer(request, result, next_cursor=page.next_cursor, limit=limit)


def _page_answer(
    request: Request,
    result: dict[str, Any],
    *,
    next_cursor: str | None,
    limit: int,
    message: str = "Shards fetched successfully!",
) -> Response:
    if next_cursor is None:
        return success(message, result)
    result["next_cursor"] = next_cursor
    following = request.url.include_query_params(cursor=next_cursor, limit=limit)
    return success(message, result, Link=f'<{following.path}?{following.query}>; rel="next"')


@admin.get(
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
    return _page_answer(request, result, next_cursor=page.next_cursor, limit=limit)


@admin.post(
    "/shards/migrate",
    status_code=202,
    summary="Migrate every shard to the newest revision",
    dependencies=[requires(Permission.PLATFORM_OPERATE)],
    responses={202: {"model": JobAnswer}, **problems(400, 401, 403, 409, 422, 503)},
)
def migrate_shards(order: MigrationOrder, jobs: JobBook) -> Response:
    """Begins a job, or names the one that is doing the same."""
    job = jobs.add(fleet_migration.KIND, order.model_dump())
    return success("The shards are being migrated.", _job_document(job), status=202, Location=f"{JOBS_PATH}/{job.id}")


@admin.get(
    "/jobs/{job_id}", summary="Show a job", responses={200: {"model": JobAnswer}, **problems(401, 403, 404, 422, 503)}
)
def show_job(job_id: JobId, jobs: JobBook) -> Response:
    """How far the job is, and what it led to."""
    return success("Job fetched successfully!", _job_document(jobs.find(job_id)))


def _job_document(job: Job) -> dict[str, Any]:
    return JobItem.model_validate(job, from_attributes=True).model_dump(mode="json")


@admin.get(
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
    return _page_answer(request, result, next_cursor=page.next_cursor, limit=limit, message=ISOLATION_CHECKED)


def _report_document(report: Report) -> dict[str, Any]:
    return {"id": str(report.practice_id), "checks": [check._asdict() for check in report.checks]}
