"""The connection to the central database, and the locks that replicas of this service share there."""

import contextlib
from collections.abc import Iterator
from enum import IntEnum

from sqlalchemy import URL, Connection, Engine, create_engine, func, select

from tenant_service.config import DatabaseSettings
from tenant_service.server_admin import APPLICATION_NAME, CONNECT_TIMEOUT_S, KEEPALIVE_OPTIONS

_OPTIONS = (
    "-c statement_timeout=5000 -c lock_timeout=2000 -c idle_in_transaction_session_timeout=10000 " + KEEPALIVE_OPTIONS
)
_MIGRATION_OPTIONS = "-c lock_timeout=60000"
"""A migration may wait for another replica's, and may take its time."""


class Lock(IntEnum):
    """Classes of advisory locks; numbers that no other schema of the central database uses."""

    RECONCILIATION = 0x7E4A01
    CHANGES = 0x7E4A02
    MIGRATION = 0x7E4A03
    JOBS = 0x7E4A04
    WARM_POOL = 0x7E4A08
    BACKUPS = 0x7E4A0C


def central_engine(settings: DatabaseSettings, *, for_migration: bool = False) -> Engine:
    """An engine that connects on first use. Waits at most 5 s for one of its 10 connections."""
    return create_engine(
        URL.create(
            "postgresql+psycopg2",
            settings.db_user,
            settings.db_pass.get_secret_value(),
            settings.db_host,
            settings.db_port,
            settings.db_name,
        ),
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": APPLICATION_NAME,
            "options": _MIGRATION_OPTIONS if for_migration else _OPTIONS,
            "tcp_user_timeout": 10_000,
            "sslmode": settings.db_sslmode,
            **({"sslrootcert": settings.db_sslrootcert} if settings.db_sslrootcert else {}),
        },
        hide_parameters=True,
        pool_pre_ping=True,
        pool_size=3,  # what it takes at rest; the others are closed when they are no longer needed
        max_overflow=7,
        pool_timeout=5,
    )


@contextlib.contextmanager
def reconciliation_locked(engine: Engine) -> Iterator[bool]:
    """Whether this process is the one that reconciles now."""
    with locked_by_session(engine, Lock.RECONCILIATION, 0) as connection:
        yield connection is not None


@contextlib.contextmanager
def locked_by_session(engine: Engine, lock: Lock, key: int) -> Iterator[Connection | None]:
    """The session that holds this lock alone, None while another has it. It ends with the process, or earlier.

    What only the holder may write goes through this session, outside any transaction: it fails when the lock is lost.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        mine = bool(connection.scalar(select(func.pg_try_advisory_lock(lock, key))))
        try:
            yield connection if mine else None
        finally:
            if mine and not connection.invalidated:
                connection.execute(select(func.pg_advisory_unlock(lock, key)))
