"""The two histories of migrations: the central schema is upgraded by Alembic, shards by SQL that Alembic writes.

Alembic's context is global and works on one database at a time, too slow for a fleet. So a shard's migrations are
pure SQL: what they send may not depend on what they find. Alembic writes each step's statements once, and they are
sent to any number of shards in parallel.
"""

import io
import threading
from functools import cache
from pathlib import Path
from typing import NamedTuple

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select

from tenant_service.central import Lock, central_engine
from tenant_service.config import DatabaseSettings
from tenant_service.schema import SCHEMA

_FOLDER = Path(__file__).parent / "migrations"
_one_at_a_time = threading.Lock()


class History(NamedTuple):
    """A folder of migrations and the schema that records how far a database is."""

    name: str
    schema: str


CENTRAL = History("central", SCHEMA)
SHARD = History("shard", "public")


def _config(history: History) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.set_main_option("version_locations", str(_FOLDER / history.name))
    config.set_main_option("path_separator", "newline")
    config.attributes["version_table_schema"] = history.schema
    return config


@cache
def head(history: History) -> str:
    """The newest revision."""
    revision = ScriptDirectory.from_config(_config(history)).get_current_head()
    assert revision
    return revision


@cache
def shard_revisions() -> tuple[str, ...]:
    """Every revision of a shard that this release knows, oldest first."""
    walk = ScriptDirectory.from_config(_config(SHARD)).walk_revisions()
    return tuple(script.revision for script in walk)[::-1]


def accepted_revisions() -> tuple[str, ...]:
    """Those that services work with: the newest and the one before, so that they go on while a fleet is migrated."""
    return shard_revisions()[-2:]


@cache
def shard_script(start: str | None, end: str) -> str:
    """The statements that bring a shard from one revision (None: from nothing) to a later one, stamp included."""
    config = _config(SHARD)
    config.output_buffer = io.StringIO()
    with _one_at_a_time:
        command.upgrade(config, f"{start or 'base'}:{end}", sql=True)
    return config.output_buffer.getvalue()


def revision_of(connection: Connection, history: History) -> str | None:
    """How far the database is."""
    return MigrationContext.configure(connection, opts={"version_table_schema": history.schema}).get_current_revision()


def upgrade(connection: Connection, history: History) -> None:
    """Upgrades to the head in the caller's transaction: all of it or nothing."""
    config = _config(history)
    config.attributes["connection"] = connection
    with _one_at_a_time:
        command.upgrade(config, "head")


def upgrade_central(settings: DatabaseSettings) -> None:
    """Upgrades the central database, one replica at a time. Raises DBAPIError."""
    engine = central_engine(settings, for_migration=True)
    with engine.begin() as connection:
        connection.execute(select(func.pg_advisory_xact_lock(Lock.MIGRATION, 0)))
        upgrade(connection, CENTRAL)
    engine.dispose()
