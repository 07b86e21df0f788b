"""What handlers are given, by name."""

import asyncio
import uuid
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine

from tenant_service.copy_keeping import CopyKeeping
from tenant_service.erasing import Erasing
from tenant_service.exporting import Exporting
from tenant_service.fleet_status import FleetStatus
from tenant_service.isolation import Isolation
from tenant_service.jobs import Jobs
from tenant_service.moving import Moving
from tenant_service.provisioning import Provisioning
from tenant_service.server_registration import ServerRegistration
from tenant_service.servers import ServerRegistry
from tenant_service.slots import Slots

PracticeId = uuid.UUID
JobId = uuid.UUID


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _servers(request: Request) -> ServerRegistry:
    servers: ServerRegistry = request.app.state.servers
    return servers


def _registration(request: Request) -> ServerRegistration:
    registration: ServerRegistration = request.app.state.registration
    return registration


def _isolation(request: Request) -> Isolation:
    isolation: Isolation = request.app.state.isolation
    return isolation


def _provisioning(request: Request) -> Provisioning:
    provisioning: Provisioning = request.app.state.provisioning
    return provisioning


def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


def _moving(request: Request) -> Moving:
    moving: Moving = request.app.state.moving
    return moving


def _keeping(request: Request) -> CopyKeeping:
    keeping: CopyKeeping = request.app.state.keeping
    return keeping


def _erasing(request: Request) -> Erasing:
    erasing: Erasing = request.app.state.erasing
    return erasing


def _exporting(request: Request) -> Exporting:
    exporting: Exporting = request.app.state.exporting
    return exporting


def _fleet_status(request: Request) -> FleetStatus:
    status: FleetStatus = request.app.state.fleet_status
    return status


def _making(request: Request) -> Slots:
    slots: Slots = request.app.state.making
    return slots


def _undoing(request: Request) -> Slots:
    slots: Slots = request.app.state.undoing
    return slots


def _claimed(request: Request) -> asyncio.Event:
    claimed: asyncio.Event = request.app.state.claimed
    return claimed


Central = Annotated[Engine, Depends(_engine)]
"""The central database."""
Servers = Annotated[ServerRegistry, Depends(_servers)]
Registration = Annotated[ServerRegistration, Depends(_registration)]
Isolating = Annotated[Isolation, Depends(_isolation)]
Provisioner = Annotated[Provisioning, Depends(_provisioning)]
JobBook = Annotated[Jobs, Depends(_jobs)]
Mover = Annotated[Moving, Depends(_moving)]
Eraser = Annotated[Erasing, Depends(_erasing)]
Exporter = Annotated[Exporting, Depends(_exporting)]
Keeping = Annotated[CopyKeeping, Depends(_keeping)]
Status = Annotated[FleetStatus, Depends(_fleet_status)]
MakingSlots = Annotated[Slots, Depends(_making)]
UndoingSlots = Annotated[Slots, Depends(_undoing)]
"""Apart from the others: dropping a database waits for a checkpoint, and sign-ups must not wait for that."""
Claimed = Annotated[asyncio.Event, Depends(_claimed)]
"""Wakes the warm pool."""
