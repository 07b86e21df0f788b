"""Wires the gateway and nothing else. Nothing connects here: connections open when they are needed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import chain

from fastapi import FastAPI

from gateway.addresses import ClientAddresses
from gateway.admin import AdminDoor
from gateway.api_keys import ApiKeys
from gateway.asking import Asker
from gateway.authentication import Authenticator
from gateway.changes import ChangeFeed
from gateway.config import Settings
from gateway.connections import KeepAliveUpstream
from gateway.directory import Directory
from gateway.documents import MergedDocument
from gateway.forwarding import Forwarder
from gateway.front import Front
from gateway.handlers import create_pages
from gateway.keys import KeyRing
from gateway.line import Line
from gateway.readiness import GatewayReadiness
from gateway.revocations import RELOAD_S, Revocations
from gateway.routes import RouteTable, Service
from gateway.shares import PracticeShares
from gateway.short_calls import ShortCalls
from gateway.throttle import FailureThrottle
from gateway.tokens import TokenVerifier
from shared.app import Readiness
from shared.context import ContextSigner
from shared.logs import describe_fault, get_logger
from shared.metrics import RequestMetrics

FORWARDING_CONNECTIONS = 200
PRACTICE_CALLS = FORWARDING_CONNECTIONS // 2
"""One practice can take half of the connections to a service's process, never all."""
ASKING_CONNECTIONS = 20
RESTART_AFTER_S = 1.0
_log = get_logger()


@dataclass(frozen=True)
class Gateway:
    """The public application, and what this process shows on its own socket."""

    app: Front
    metrics: RequestMetrics
    ready: Readiness


def create_app(settings: Settings) -> Gateway:
    """The gateway of these settings."""
    urls = {
        Service.AUTH: (settings.auth_service_url,),
        Service.TENANT: (settings.tenant_service_url,),
        Service.PATIENT: settings.patient_service_url,
    }
    lines = {
        service: [Line(KeepAliveUpstream(url, connections=FORWARDING_CONNECTIONS)) for url in processes]
        for service, processes in urls.items()
    }
    askers = {
        service: [
            Asker(KeepAliveUpstream(url, connections=ASKING_CONNECTIONS), settings.gateway_keys) for url in processes
        ]
        for service, processes in urls.items()
    }
    [auth], [tenant] = askers[Service.AUTH], askers[Service.TENANT]
    # by themselves: no flood of questions about made-up keys or practices may hold up who was suspended or logged out
    auth_changes, tenant_changes = (
        Asker(KeepAliveUpstream(url, connections=1), settings.gateway_keys)
        for url in (settings.auth_service_url, settings.tenant_service_url)
    )
    keys = KeyRing(auth)
    revocations, directory = Revocations(), Directory(tenant)
    sessions_feed = ChangeFeed(
        auth_changes, revocations, service=Service.AUTH.value, reload_s=RELOAD_S, on_signing_key=keys.announced
    )
    shards_feed = ChangeFeed(tenant_changes, directory, service=Service.TENANT.value)
    authenticator = Authenticator(
        verifier=TokenVerifier(keys, revocations),
        api_keys=ApiKeys(auth, revocations),
        revocations=revocations,
        admin_door=_admin_door(settings),
        directory=directory,
        sessions_feed=sessions_feed,
        shards_feed=shards_feed,
    )
    readiness = GatewayReadiness(askers, keys=keys, feeds={"revocations": sessions_feed, "directory": shards_feed})
    pages = create_pages(
        ready=readiness.missing,
        keys=keys,
        document=MergedDocument(askers),
        lifespan=_lifespan(
            [keys.run, sessions_feed.run, shards_feed.run],
            [*chain(*lines.values()), *chain(*askers.values()), auth_changes, tenant_changes],
        ),
    )
    metrics = RequestMetrics()
    routes, addresses = RouteTable(), ClientAddresses(settings.trusted_proxies)
    signer, shares = ContextSigner(settings.gateway_keys), PracticeShares(PRACTICE_CALLS)
    forwarder = Forwarder(
        lines, authenticator=authenticator, signer=signer, shares=shares, call_timeout_s=settings.call_timeout_s
    )
    short_calls = ShortCalls(
        lines,
        routes=routes,
        addresses=addresses,
        authenticator=authenticator,
        signer=signer,
        shares=shares,
        call_timeout_s=settings.call_timeout_s,
    )
    front = Front(
        pages, routes=routes, forwarder=forwarder, short_calls=short_calls, addresses=addresses, metrics=metrics
    )
    return Gateway(front, metrics, readiness.missing)


def _admin_door(settings: Settings) -> AdminDoor:
    throttle = FailureThrottle(settings.admin_failures_per_address)
    return AdminDoor(settings.admin_user_name, settings.admin_password.get_secret_value(), throttle)


def _lifespan(
    loops: Sequence[Callable[[], Awaitable[None]]], connections: Sequence[Line | Asker]
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Runs the background loops while the server runs, and closes the connections at its end."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(_keep_running(loop)) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for connection in connections:
                await connection.close()

    return lifespan


async def _keep_running(loop: Callable[[], Awaitable[None]]) -> None:
    """A background loop that must not die of a fault nobody thought of."""
    while True:
        try:
            await loop()
        except Exception as fault:  # noqa: BLE001 - logged without its text, and tried again
            _log.error("background_loop_failed", **describe_fault(fault))
        await asyncio.sleep(RESTART_AFTER_S)
