"""One PostgreSQL server, as its admin role. The only way statements about databases and roles reach a server."""

import contextlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import psycopg2
import psycopg2.extensions
from psycopg2 import sql
from sqlalchemy import URL, create_engine

APPLICATION_NAME = "gowebbo tenant-service"
MAINTENANCE_DATABASE = "postgres"
CONNECT_TIMEOUT_S = 3
CONNECTIONS = 5
"""For one server and process: two sign-ups, an undoing, a sweep, a check. Who finds none free waits."""
KEPT_CONNECTIONS = 2
"""Of these; the others end with what they were opened for."""
WAIT_FOR_CONNECTION_S = 5
KEEPALIVE_OPTIONS = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
"""The server notices within 25 s that a machine is gone, and frees the locks it held."""
_OPTIONS = f"-c statement_timeout=120000 -c lock_timeout=5000 {KEEPALIVE_OPTIONS}"
"""Dropping a database forces a checkpoint: 21 s were seen after 170 new databases; everything else is quick."""

_DATABASE_LOCK = 0x7E4A10
"""Class of the advisory locks for single databases."""

Statement = sql.Composable
Row = tuple[Any, ...]


class Access(NamedTuple):
    """Where a server is and who enters. Equal accesses reach the same server in the same way."""

    host: str
    port: int
    user: str
    password: str
    sslmode: str = "prefer"
    sslrootcert: str | None = None

    def connect_args(self) -> dict[str, Any]:
        """The connection's parameters besides the URL's."""
        return {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": APPLICATION_NAME,
            "options": _OPTIONS,
            "tcp_user_timeout": 10_000,
            "sslmode": self.sslmode,
            **({"sslrootcert": self.sslrootcert} if self.sslrootcert else {}),
        }

    def connect(self, database: str, **parameters: str) -> psycopg2.extensions.connection:
        """A new connection to a database of the server, with further parameters of libpq. Raises OperationalError."""
        connection: psycopg2.extensions.connection = psycopg2.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=database,
            connection_factory=psycopg2.extensions.connection,
            **(self.connect_args() | parameters),
        )
        return connection

    def __repr__(self) -> str:
        """Without the password."""
        return f"Access({self.user}@{self.host}:{self.port})"


class AdminSession:
    """One connection of the admin role to a server's maintenance database, outside any transaction."""

    def __init__(self, cursor: psycopg2.extensions.cursor, access: Access) -> None:
        self._cursor = cursor
        self._access = access

    @property
    def access(self) -> Access:
        """How to get to other databases of the server."""
        return self._access

    @property
    def version(self) -> int:
        """The server's, as libpq writes it: 150004, 180001."""
        return self._cursor.connection.server_version

    def run(self, *statements: Statement) -> None:
        """Sends statements together, which makes PostgreSQL run them in one transaction; a lone one runs outside any.

        CREATE DATABASE and DROP DATABASE must be alone.
        """
        self._cursor.execute(sql.SQL("; ").join(statements))

    def rows(self, query: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> list[Row]:
        """The rows of a query."""
        self._cursor.execute(query, parameters)
        return self._cursor.fetchall()

    @contextlib.contextmanager
    def inside(self, database: str) -> Iterator[psycopg2.extensions.connection]:
        """A further connection, to another database of the server, closed at the end."""
        with contextlib.closing(self._access.connect(database)) as connection:
            yield connection


class ServerAdmin:
    """A server's sessions. Connects on first use; safe to share among threads.

    Everything raises psycopg2's or SQLAlchemy's OperationalError when the server can't be reached.
    """

    def __init__(self, access: Access, *, connections: int = CONNECTIONS) -> None:
        self.access = access
        self._engine = create_engine(
            URL.create(
                "postgresql+psycopg2", access.user, access.password, access.host, access.port, MAINTENANCE_DATABASE
            ),
            isolation_level="AUTOCOMMIT",
            connect_args=access.connect_args(),
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=min(connections, KEPT_CONNECTIONS),
            max_overflow=max(0, connections - KEPT_CONNECTIONS),
            pool_use_lifo=True,
            pool_timeout=WAIT_FOR_CONNECTION_S,
        )

    @contextlib.contextmanager
    def session(self) -> Iterator[AdminSession]:
        """A session for reading."""
        with self._engine.connect() as connection:
            driver = cast("psycopg2.extensions.connection", connection.connection.driver_connection)
            try:
                with driver.cursor() as cursor:
                    yield AdminSession(cursor, self.access)
            finally:
                if driver.closed:
                    connection.invalidate()

    @contextlib.contextmanager
    def locked(self, database: str) -> Iterator[AdminSession]:
        """The only session that makes, changes or drops this database. Raises OperationalError after 5 s of waiting.

        The lock belongs to the server's own process that does the work: when this process is killed, that one goes
        on with its statement, and whoever comes next must not overtake it.
        """
        with self.session() as session:
            session.rows("SELECT pg_advisory_lock(%s, %s)", _lock_of(database))
            try:
                yield session
            finally:
                _unlock(session, database)

    @contextlib.contextmanager
    def locked_if_free(self, database: str) -> Iterator[AdminSession | None]:
        """As `locked`; None at once while somebody else is at this database."""
        with self.session() as session:
            ((mine,),) = session.rows("SELECT pg_try_advisory_lock(%s, %s)", _lock_of(database))
            try:
                yield session if mine else None
            finally:
                if mine:
                    _unlock(session, database)

    @contextlib.contextmanager
    def apart(self) -> Iterator["ServerAdmin"]:
        """The same server through one further connection, closed at the end.

        For work that copies whole databases: the server's process for it comes to map most of the shared buffers,
        tens of megabytes that would count as its memory for as long as an idle connection is kept.
        """
        with contextlib.closing(ServerAdmin(self.access, connections=1)) as admin:
            yield admin

    def close(self) -> None:
        """Closes idle connections."""
        self._engine.dispose()


def _lock_of(database: str) -> tuple[int, int]:
    return _DATABASE_LOCK, zlib.crc32(database.encode()) - 2**31


def _unlock(session: AdminSession, database: str) -> None:
    with contextlib.suppress(psycopg2.Error):  # a session that broke lost its locks with that
        session.rows("SELECT pg_advisory_unlock(%s, %s)", _lock_of(database))
