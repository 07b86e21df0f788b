"""Operator commands: python -m tenant_service.cli prepare | prepare-server | migrate. Each is safe to repeat."""

import argparse
import sys
from collections.abc import Callable, Mapping

import psycopg2
from sqlalchemy.exc import DBAPIError

from shared.settings import load
from tenant_service import migrating, preparation
from tenant_service.config import DatabaseSettings, PrepareServerSettings, PrepareSettings
from tenant_service.exceptions import PreparationRefusedError


def prepare() -> None:
    """Roles, central database, and the shard server beside it; needs DB_SUPERUSER."""
    preparation.prepare(load(PrepareSettings))


def prepare_server() -> None:
    """The shard-server part only, for further servers; needs DB_SUPERUSER."""
    preparation.prepare_server(load(PrepareServerSettings))


def migrate() -> None:
    """The schema `tenant` of the central database to its newest revision."""
    migrating.upgrade_central(load(DatabaseSettings))


COMMANDS: Mapping[str, Callable[[], None]] = {
    "prepare": prepare,
    "prepare-server": prepare_server,
    "migrate": migrate,
}


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; 0 when all of it succeeded."""
    parser = argparse.ArgumentParser(prog="python -m tenant_service.cli", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.__doc__)
    chosen = parser.parse_args(arguments).command
    try:
        COMMANDS[chosen]()
    except PreparationRefusedError as fault:
        sys.stderr.write(f"{chosen}: {fault}\n")
        return 1
    except (psycopg2.Error, DBAPIError) as fault:
        # the driver's own words: they name the host, the database or the right that is missing
        sys.stderr.write(f"{chosen}: {str(getattr(fault, 'orig', fault)).strip()}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
