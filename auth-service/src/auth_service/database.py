"""The way to the central database: one engine, as many threads as connections, and nobody waits for ever.

Rules open their transactions themselves (`with database.engine.begin() as connection`) inside `run`.
"""

import asyncio
import select
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from psycopg2.extensions import connection as PGConnection  # noqa: N812 - a class
from sqlalchemy import URL, create_engine, event
from sqlalchemy.exc import (
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    InternalError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from auth_service.config import DatabaseSettings
from shared.errors import UnavailableError
from shared.logs import get_logger

_KEPT = 3
"""Connections that stay open: 3.5 MB each, and at rest one would do. The others close when they aren't needed."""
_CONNECTIONS = 10
_POOL_TIMEOUT_S = 5
_CONNECT_TIMEOUT_S = 2
_MAX_WAIT_S = 5.0
_RETRY_AFTER_S = 2
_SERVER_SIDE = "-c timezone=UTC -c statement_timeout=5000 -c lock_timeout=2000"
_IDLE_IN_TRANSACTION = "-c idle_in_transaction_session_timeout=10000"
_NOT_MIGRATED = frozenset({"42P01", "3F000"})
"""SQLSTATE of a missing table and of a missing schema."""

_Result = TypeVar("_Result")
_log = get_logger()


class Database:
    """The engine, and the threads that use it. Nothing connects before the first use."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self.engine = create_engine(
            URL.create(
                "postgresql+psycopg2",
                username=settings.db_user,
                password=settings.db_pass.get_secret_value(),
                host=settings.db_host,
                port=settings.db_port,
                database=settings.db_name,
            ),
            hide_parameters=True,
            pool_size=_KEPT,
            max_overflow=_CONNECTIONS - _KEPT,
            pool_timeout=_POOL_TIMEOUT_S,
            connect_args={
                "connect_timeout": _CONNECT_TIMEOUT_S,
                "sslmode": settings.db_sslmode,
                **({"sslrootcert": settings.db_sslrootcert} if settings.db_sslrootcert else {}),
                "application_name": "auth-service",
                "options": f"{_SERVER_SIDE} {_IDLE_IN_TRANSACTION}",
                # a server that vanished without a word is noticed after seconds, not after minutes
                "tcp_user_timeout": 5000,
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 2,
            },
        )
        event.listen(self.engine, "checkout", _refuse_closed)
        self.reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        """For one statement that only reads: without BEGIN and COMMIT, which are a round trip each."""
        # as many threads as connections: a thread never waits for the pool, a coroutine waits for a thread
        self._threads = ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="database")
        self._free = asyncio.Semaphore(_CONNECTIONS)

    async def run(self, work: Callable[..., _Result], *arguments: object) -> _Result:
        """Runs blocking work in one of the threads. Raises UnavailableError when the database can't do it now."""
        try:
            async with asyncio.timeout(_MAX_WAIT_S):
                await self._free.acquire()
        except TimeoutError as fault:
            raise UnavailableError(retry_after_s=_RETRY_AFTER_S) from fault
        future = self._threads.submit(copy_context().run, work, *arguments)
        loop = asyncio.get_running_loop()
        # released when the thread is done, not when its caller went away
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._free.release))
        try:
            return await asyncio.wrap_future(future)
        except SQLAlchemyError as fault:
            if not _is_outage(fault):
                raise
            _log.warning("database_unavailable", fault=type(fault).__qualname__, sqlstate=_sqlstate(fault))
            raise UnavailableError(retry_after_s=_RETRY_AFTER_S) from fault

    def close(self) -> None:
        """Ends threads and connections; running work is waited for."""
        self._threads.shutdown(cancel_futures=True)
        self.engine.dispose()


def _refuse_closed(connection: PGConnection, *_: object) -> None:
    """Makes the pool replace a connection that the server has ended: all it says to an idle one is that.

    `pool_pre_ping` asks the server each time instead, which was a third of a log-in's time in the database.
    """
    arrived = select.poll()
    arrived.register(connection.fileno(), select.POLLIN)
    if arrived.poll(0):
        raise DisconnectionError


def _sqlstate(fault: SQLAlchemyError) -> str | None:
    return getattr(fault.orig, "pgcode", None) if isinstance(fault, DBAPIError) else None


def _is_outage(fault: SQLAlchemyError) -> bool:
    """Whether the same work may succeed later: no connection, a time-out, a full disk, a standby, no migration yet."""
    if isinstance(fault, OperationalError | InterfaceError | InternalError | PoolTimeoutError):
        return True
    return _sqlstate(fault) in _NOT_MIGRATED
