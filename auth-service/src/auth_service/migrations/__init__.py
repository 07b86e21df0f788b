"""The history of schema `auth`, carried by the package so that every image has it. Changes only ever append to it."""

import functools

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, func, inspect, select, text

from auth_service.schema import SCHEMA

_LOCK = 0x6175_7468_0003
"""Advisory lock: one process migrates at a time, the others wait and find the work done."""


def migration_config() -> Config:
    """Alembic's configuration."""
    config = Config()
    config.set_main_option("script_location", "auth_service:migrations")
    config.set_main_option("path_separator", "os")
    return config


def migrate(engine: Engine) -> None:
    """Brings the schema to the newest revision, all or nothing. Raises SQLAlchemyError."""
    config = migration_config()
    with engine.begin() as connection:
        # migrations may take as long as they need; the request path's limits are not for them
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def missing_migrations(engine: Engine) -> str | None:
    """Why the schema is too old for this code; None when it isn't. A newer one is fine: updates migrate first."""
    with engine.begin() as connection:
        if not inspect(connection).has_table("alembic_version", schema=SCHEMA):
            return "not migrated"
        found = connection.scalar(text(f"SELECT version_num FROM {SCHEMA}.alembic_version"))  # noqa: S608 - a constant
    return "not migrated" if found is None or found in _older_revisions() else None


@functools.cache
def _older_revisions() -> frozenset[str]:
    script = ScriptDirectory.from_config(migration_config())
    return frozenset(one.revision for one in script.walk_revisions()) - {script.get_current_head()}
