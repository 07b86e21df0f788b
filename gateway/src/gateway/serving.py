"""Puts the gateway on its sockets: the public one, which processes may share, and one of its own."""

import asyncio
import logging

import uvicorn
from fastapi import FastAPI, Response
from starlette.types import ASGIApp

from gateway.config import Settings
from gateway.edge import EdgeProtocol
from gateway.main import Gateway, create_app
from shared.app import add_health_routes
from shared.metrics import MEDIA_TYPE
from shared.server import inherited_sockets, make_server, spare_garbage_collection


def make_edge_server(app: ASGIApp, *, host: str, port: int) -> uvicorn.Server:
    """A server with the house's choices and the edge's limits."""
    server = make_server(app, host=host, port=port)
    server.config.http = EdgeProtocol
    server.config.date_header = True
    # uvicorn has a line for each request that isn't HTTP: whoever wants to could fill a disk with them
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    return server


def inner_app(gateway: Gateway) -> FastAPI:
    """What every service has, of this process: `/metrics`, `/livez` and `/readyz`; nothing else."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_health_routes(app, gateway.ready)

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(gateway.metrics.text(), media_type=MEDIA_TYPE)

    return app


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT."""
    gateway = create_app(settings)
    spare_garbage_collection()
    public = make_edge_server(gateway.app, host=settings.host, port=settings.port)
    if settings.metrics_fd is None and settings.metrics_port is None:
        await public.serve(sockets=inherited_sockets(settings.service_fd))
        return
    inner = make_server(inner_app(gateway), host=settings.host, port=settings.metrics_port or 0)
    serving_inner = asyncio.create_task(inner.serve(sockets=inherited_sockets(settings.metrics_fd)))
    # uvicorn's servers hand a signal on from the last started to the first: the public one must get it first
    await asyncio.sleep(0)
    await public.serve(sockets=inherited_sockets(settings.service_fd))
    await serving_inner
