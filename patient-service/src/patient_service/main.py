"""Wires the service and nothing else. Nothing connects before it runs, and it runs whatever is down."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI

from patient_service import handlers
from patient_service.config import Settings
from patient_service.fast_routes import FastRoutes
from patient_service.pool_metrics import PoolMetrics
from patient_service.servers import Servers
from patient_service.shard_opening import ShardOpener
from patient_service.shard_pool import PoolLimits, ShardPool
from shared.app import ServiceApp, create_service_app


def create_app(settings: Settings) -> ServiceApp:
    """The service, ready to be served."""
    servers = Servers(settings.tenant_service_url, keys=settings.gateway_keys)
    pool = ShardPool(
        servers,
        ShardOpener(settings.shard_secrets),
        limits=PoolLimits(
            per_practice=settings.per_practice,
            queue=settings.practice_queue,
            wait_s=settings.practice_wait_ms / 1000,
            idle_s=settings.idle_connection_s,
        ),
        budget=settings.budget,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loops = [asyncio.create_task(servers.keep_fresh()), asyncio.create_task(pool.expire())]
        yield
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await pool.close()
        await servers.close()

    app = create_service_app(
        title="GoWebbo patients",
        keys=settings.gateway_keys,
        ready=servers.missing,
        lifespan=lifespan,
        behind_door=partial(FastRoutes, router=handlers.router),
    )
    app.state.pool = pool
    app.state.metrics.registry.register(PoolMetrics(pool))
    app.include_router(handlers.router)
    return app
