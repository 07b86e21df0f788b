"""What jobs do, by their kind: everything that outlasts a request."""

from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import Engine

from tenant_service import (
    backing_up,
    comparing,
    draining,
    fleet_migration,
    fleet_query,
    moving,
    restoring,
    swapping,
)
from tenant_service.backing_up import BackingUp
from tenant_service.backup_keys import BackupKeys
from tenant_service.comparing import Comparing
from tenant_service.config import Settings
from tenant_service.draining import Draining
from tenant_service.fleet_migration import FleetMigration
from tenant_service.fleet_query import FleetQuery
from tenant_service.jobs import Deed
from tenant_service.moving import Moving
from tenant_service.restoring import Restoring
from tenant_service.servers import ServerRegistry
from tenant_service.swapping import Swapping


class Deeds:
    """All of them, and those that others use too."""

    def __init__(self, engine: Engine, servers: ServerRegistry, keys: BackupKeys, settings: Settings) -> None:
        kept_for = timedelta(hours=settings.copies_kept_hours)
        compared = Comparing(engine, servers)
        self.moving = Moving(engine, servers, shard_key=settings.shard_keys[0], kept_for=kept_for)
        self.backing_up = BackingUp(engine, servers, keys)
        self.by_kind: Mapping[str, Deed] = {
            fleet_migration.KIND: FleetMigration(engine, servers, workers=settings.migrations_per_server).run,
            moving.KIND: self.moving.run,
            draining.KIND: Draining(engine, servers, self.moving).run,
            backing_up.KIND: self.backing_up.run,
            restoring.KIND: Restoring(engine, servers, keys, kept_for=kept_for).run,
            comparing.DIFF_KIND: compared.diff,
            comparing.TAKE_BACK_KIND: compared.take_back,
            fleet_query.KIND: FleetQuery(engine, servers, shard_keys=settings.shard_keys).run,
            swapping.KIND: Swapping(engine, servers, compared, kept_for=kept_for).run,
        }
