"""Operator commands of the service: `python -m auth_service.cli migrate`."""

import argparse
import sys

from sqlalchemy.exc import SQLAlchemyError

from auth_service.config import DatabaseSettings
from auth_service.database import Database
from auth_service.migrations import migrate
from shared.logs import configure_logs, describe_fault, get_logger
from shared.settings import load


def main() -> int:
    """Exit status 0 when the command succeeded."""
    parser = argparse.ArgumentParser(prog="python -m auth_service.cli", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("migrate", help="bring schema `auth` to the newest revision; safe to run at any time")
    parser.parse_args()
    return _migrate(load(DatabaseSettings))


def _migrate(settings: DatabaseSettings) -> int:
    configure_logs("auth-service", level=settings.log_level)
    try:
        migrate(Database(settings).engine)
    except SQLAlchemyError as fault:
        sqlstate = getattr(getattr(fault, "orig", None), "pgcode", None)
        get_logger().error("migration_failed", sqlstate=sqlstate, **describe_fault(fault))
        sys.stderr.write(
            f"The central database was not migrated. Is PostgreSQL reachable at {settings.db_host}:{settings.db_port},"
            f" and was it prepared (python -m tenant_service.cli prepare)?\n"
        )
        return 1
    get_logger().info("migrated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
