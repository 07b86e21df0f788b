"""Shard servers: listed, added, drained, opened, removed."""

from typing import Annotated, Any

from fastapi import Path, Response

from shared.envelope import success
from shared.models import Success, problems
from tenant_service import listing
from tenant_service.config import SERVER_KEY
from tenant_service.dependencies import Central, Registration, Servers
from tenant_service.handlers.shapes import OPERATE, admin_router
from tenant_service.models.servers import ServerAnswer, ServerBody, ServersAnswer
from tenant_service.storage.registry import Server

router = admin_router()
ServerKey = Annotated[str, Path(pattern=rf"^{SERVER_KEY}$", description="The server's key.")]


@router.get(
    "/servers", summary="List the shard servers", responses={200: {"model": ServersAnswer}, **problems(401, 403, 503)}
)
def list_servers(central: Central, servers: Servers) -> Response:
    """Every shard server with its load."""
    data = [_server_document(server, servers) for server in listing.known_servers(central)]
    return success("Shard servers fetched successfully!", {"data": data})


def _server_document(server: Server, servers: Servers) -> dict[str, Any]:
    shown = ("key", "host", "port", "state", "practices", "capacity")
    return {name: getattr(server, name) for name in shown} | {"connections": servers.connections(server.key)}


@router.post(
    "/servers",
    summary="Add a shard server",
    dependencies=[OPERATE],
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


@router.post(
    "/servers/{key}/drain",
    summary="Drain a shard server",
    dependencies=[OPERATE],
    responses={200: {"model": ServerAnswer}, **problems(401, 403, 404, 422, 503)},
)
def drain_server(key: ServerKey, registration: Registration, servers: Servers) -> Response:
    """It takes no new practices from then on; those it has go on as before."""
    return success("Shard server drained successfully!", _server_document(registration.drain(key), servers))


@router.post(
    "/servers/{key}/open",
    summary="Open a drained shard server",
    dependencies=[OPERATE],
    responses={200: {"model": ServerAnswer}, **problems(401, 403, 404, 422, 503)},
)
def open_server(key: ServerKey, registration: Registration, servers: Servers) -> Response:
    """It takes new practices again."""
    return success("Shard server opened successfully!", _server_document(registration.open(key), servers))


@router.delete(
    "/servers/{key}",
    summary="Remove a shard server",
    dependencies=[OPERATE],
    responses={200: {"model": Success}, **problems(401, 403, 404, 409, 422, 503)},
)
def remove_server(key: ServerKey, registration: Registration) -> Response:
    """Forgets a drained server that holds nothing; 409 while it does. What it is stays as it is."""
    registration.remove(key)
    return success("Shard server removed successfully!")
