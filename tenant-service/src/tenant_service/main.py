"""Wires the service; nothing connects before it runs, and it runs whatever is down."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import timedelta
from typing import NamedTuple

import psycopg2
from fastapi import FastAPI, Request, Response
from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFreeError

from shared.app import create_service_app, error_response
from shared.errors import UnavailableError
from shared.logs import describe_fault, get_logger
from tenant_service import migrating
from tenant_service.background import repeat
from tenant_service.backup_keys import BackupKeys
from tenant_service.central import central_engine
from tenant_service.config import Settings
from tenant_service.copy_keeping import CopyKeeping
from tenant_service.deeds import Deeds
from tenant_service.erasing import Erasing
from tenant_service.exceptions import ShardServerUnavailableError
from tenant_service.exporting import Exporting
from tenant_service.fleet_status import FleetStatus
from tenant_service.handlers import ROUTERS
from tenant_service.isolation import Isolation
from tenant_service.jobs import Jobs
from tenant_service.keep_rule import KeepRule
from tenant_service.provisioning import Provisioning
from tenant_service.reconciliation import Reconciler
from tenant_service.scheduled_backups import ROUND_EVERY_S as LOOK_FOR_BACKUPS_EVERY_S
from tenant_service.scheduled_backups import ScheduledBackups
from tenant_service.sealing import Sealing
from tenant_service.server_registration import ServerRegistration
from tenant_service.servers import FAULTS, ServerRegistry
from tenant_service.slots import Slots
from tenant_service.warm_pool import ROUND_EVERY_S, WarmPool

REFRESH_SERVERS_EVERY_S = 3.0
"""A server that is back takes practices so soon."""
LOOK_FOR_JOBS_EVERY_S = 0.5
JOBS_AT_ONCE = 3
"""So that a practice's move need not wait for the fleet's migration."""
_log = get_logger()


def create_app(settings: Settings) -> FastAPI:
    """The service's application."""
    engine = central_engine(settings)
    servers = ServerRegistry(engine, settings)
    keys = BackupKeys(engine, Sealing(settings.backup_secrets))
    deeds = Deeds(engine, servers, keys, settings)
    jobs = Jobs(engine, deeds.by_kind, before_each=servers.refresh)
    fleet_status = FleetStatus(engine, servers)
    making, undoing = Slots(settings.clones_in_parallel), Slots(1)
    claimed = asyncio.Event()

    async def ready() -> dict[str, str]:
        return await asyncio.to_thread(lambda: _missing_in(engine) | servers.missing())

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with _repeating(
            *(Round(jobs.do_waiting, "jobs", LOOK_FOR_JOBS_EVERY_S) for _ in range(JOBS_AT_ONCE)),
            Round(servers.refresh, "servers", REFRESH_SERVERS_EVERY_S),
            Round(pool.refill, "warm pool", ROUND_EVERY_S, claimed),
            Round(schedule.round, "backups", LOOK_FOR_BACKUPS_EVERY_S),
            Round(reconciler.sweep, "reconciler", settings.reconcile_every_s),
            stop=(jobs.stop, schedule.stop, pool.stop),
        ):
            yield
        for close in (making.close, undoing.close, fleet_status.close):
            await asyncio.to_thread(close)
        servers.close()
        engine.dispose()

    app = create_service_app(title="GoWebbo tenants", keys=settings.gateway_keys, ready=ready, lifespan=lifespan)
    metrics, shard_key = app.state.metrics.registry, settings.shard_keys[0]
    provisioning = Provisioning(engine, servers, shard_key=shard_key, metrics=metrics)
    pool = WarmPool(
        engine,
        servers,
        size=settings.shard_warm_pool,
        shard_key=shard_key,
        metrics=metrics,
        is_rush=lambda: making.has_queue,
    )
    schedule = ScheduledBackups(
        engine,
        deeds.backing_up,
        keys,
        folder=settings.backup_dir,
        every=timedelta(hours=settings.backup_every_hours),
        rule=KeepRule(settings.backup_keep_hourly, settings.backup_keep_daily, settings.backup_keep_weekly),
        metrics=metrics,
    )
    reconciler = Reconciler(engine, servers, provisioning, pool, metrics=metrics)
    app.state.engine, app.state.servers, app.state.provisioning = engine, servers, provisioning
    app.state.jobs, app.state.fleet_status, app.state.moving = jobs, fleet_status, deeds.moving
    app.state.deeds, app.state.keeping, app.state.schedule = deeds.by_kind, CopyKeeping(engine, servers), schedule
    app.state.pool, app.state.making, app.state.undoing, app.state.claimed = pool, making, undoing, claimed
    app.state.erasing, app.state.exporting = Erasing(engine, servers), Exporting(engine, servers)
    app.state.isolation = Isolation(engine, servers, provisioning, settings)
    app.state.registration = ServerRegistration(engine, servers, settings)
    for fault_type in (OperationalError, InterfaceError, NoConnectionFreeError):
        app.add_exception_handler(fault_type, _answer_database_down)
    app.add_exception_handler(psycopg2.Error, _answer_server_refuses)
    for router in ROUTERS:
        app.include_router(router)
    return app


class Round(NamedTuple):
    """A deed that is repeated: see background.repeat."""

    deed: Callable[[], bool]
    name: str
    every_s: float
    wanted: asyncio.Event | None = None


@contextlib.asynccontextmanager
async def _repeating(*rounds: Round, stop: Iterable[Callable[[], None]]) -> AsyncIterator[None]:
    """Repeats deeds meanwhile; `stop` tells those that take long to come to an end."""
    tasks = [
        asyncio.create_task(repeat(one.deed, name=one.name, every_s=one.every_s, wanted=one.wanted)) for one in rounds
    ]
    yield
    for each in stop:
        each()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _answer_database_down(request: Request, fault: Exception) -> Response:
    _log.warning("central_database_unavailable", **describe_fault(fault))
    return error_response(request, UnavailableError(retry_after_s=2))


async def _answer_server_refuses(request: Request, fault: Exception) -> Response:
    """The bare driver is used on shard servers only; the directory knows how far it came, so it may be tried again."""
    _log.warning("shard_server_refused", **describe_fault(fault))
    return error_response(request, ShardServerUnavailableError(retry_after_s=2))


def _missing_in(engine: Engine) -> dict[str, str]:
    """What the central database lacks. Blocks for at most some seconds."""
    try:
        with engine.connect() as connection:
            revision = migrating.revision_of(connection, migrating.CENTRAL)
    except FAULTS:
        return {"central database": "not reachable"}
    if revision != migrating.head(migrating.CENTRAL):
        return {"central database": "not migrated"}
    return {}
