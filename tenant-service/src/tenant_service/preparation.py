"""The one-time work of a superuser: roles, the central database, and who may connect where. Safe to repeat.

No superuser is used after this.
"""

import contextlib
from collections.abc import Iterator

import psycopg2
import psycopg2.extensions
from psycopg2 import sql
from pydantic import SecretStr

from shared.shards import FLEET_STAMP, PRACTICE_STAMP
from tenant_service.config import PrepareServerSettings, PrepareSettings
from tenant_service.exceptions import PreparationRefusedError
from tenant_service.schema import SCHEMA
from tenant_service.scram import ADMIN_ITERATIONS, UnsuitablePasswordError, scram_verifier
from tenant_service.server_admin import MAINTENANCE_DATABASE, Access
from tenant_service.server_check import OLDEST_VERSION, PUBLIC_DATABASES
from tenant_service.templates import SHARD_GROUP

AUTH_ROLE = "gowebbo_auth"
TENANT_ROLE = "gowebbo_tenant"
AUTH_SCHEMA = "auth"
_LOCK = 0x7E4A00
_ORDINARY = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
_ADMIN = "LOGIN NOSUPERUSER CREATEDB CREATEROLE NOREPLICATION NOBYPASSRLS"
_GROUP = "NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"


def prepare(settings: PrepareSettings) -> None:
    """Prepares the server of the central database, which may hold shards too. Raises PreparationRefusedError."""
    auth_verifier = _verifier("AUTH_DB_PASS", settings.auth_db_pass)
    tenant_verifier = _verifier("TENANT_DB_PASS", settings.tenant_db_pass)
    with _superuser(settings, MAINTENANCE_DATABASE) as server:
        _prepare_shard_server(server, tenant_verifier)
        server.ensure_role(AUTH_ROLE, rights=_ORDINARY, verifier=auth_verifier)
        _ensure_central_database(server, settings.db_name)
        with _superuser(settings, settings.db_name) as central:
            central.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
            central.execute("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}", AUTH_SCHEMA, AUTH_ROLE)
            central.execute("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}", SCHEMA, TENANT_ROLE)


def prepare_server(settings: PrepareServerSettings) -> None:
    """Prepares a further server, for shards only. Raises PreparationRefusedError."""
    verifier = _verifier("TENANT_DB_PASS", settings.tenant_db_pass)
    with _superuser(settings, MAINTENANCE_DATABASE) as server:
        _prepare_shard_server(server, verifier)


class _Superuser:
    """A superuser's session in one database. Names are quoted by the driver."""

    def __init__(self, cursor: psycopg2.extensions.cursor) -> None:
        self._cursor = cursor

    def execute(self, statement: str, *identifiers: str, password: str | None = None) -> None:
        """Runs a statement in which each `{}` is an identifier and `{password}` a literal."""
        names = map(sql.Identifier, identifiers)
        self._cursor.execute(sql.SQL(statement).format(*names, password=sql.Literal(password)))

    def exists(self, query: str, name: str) -> bool:
        """Whether the query about this name has a row."""
        self._cursor.execute(query, (name,))
        return self._cursor.fetchone() is not None

    def ensure_role(self, name: str, *, rights: str, verifier: str | None = None) -> None:
        """Makes the role, or gives it exactly these rights and this password."""
        verb = "ALTER" if self.exists("SELECT 1 FROM pg_roles WHERE rolname = %s", name) else "CREATE"
        self.execute(f"{verb} ROLE {{}} {rights} PASSWORD {{password}}", name, password=verifier)


def _prepare_shard_server(server: _Superuser, verifier: str) -> None:
    server.ensure_role(TENANT_ROLE, rights=_ADMIN, verifier=verifier)
    server.ensure_role(SHARD_GROUP, rights=_GROUP)
    # since PostgreSQL 16 only who has the admin option may take new shard roles into the group
    server.execute("GRANT {} TO {} WITH ADMIN OPTION", SHARD_GROUP, TENANT_ROLE)
    server.execute("GRANT pg_signal_backend TO {}", TENANT_ROLE)
    for stamp in (PRACTICE_STAMP, FLEET_STAMP):
        server.execute(f"GRANT SET ON PARAMETER {stamp} TO {{}}", TENANT_ROLE)
    for database in PUBLIC_DATABASES:
        server.execute("REVOKE ALL ON DATABASE {} FROM PUBLIC", database)
    server.execute("GRANT CONNECT ON DATABASE {} TO {}", MAINTENANCE_DATABASE, TENANT_ROLE)


def _ensure_central_database(server: _Superuser, name: str) -> None:
    if not server.exists("SELECT 1 FROM pg_database WHERE datname = %s", name):
        server.execute(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER libc "
            "LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'",
            name,
        )
    server.execute("REVOKE ALL ON DATABASE {} FROM PUBLIC", name)
    server.execute("GRANT CONNECT ON DATABASE {} TO {}, {}", name, AUTH_ROLE, TENANT_ROLE)


def _verifier(setting: str, password: SecretStr) -> str:
    try:
        return scram_verifier(password.get_secret_value(), iterations=ADMIN_ITERATIONS)
    except UnsuitablePasswordError as fault:
        raise PreparationRefusedError(f"{setting}: {fault}") from fault


@contextlib.contextmanager
def _superuser(settings: PrepareServerSettings, database: str) -> Iterator[_Superuser]:
    """A superuser's session, alone at this work in this database. Raises PreparationRefusedError."""
    with contextlib.closing(_connect(settings, database)) as connection, connection.cursor() as cursor:
        _check_version(connection)
        session = _Superuser(cursor)
        if not session.exists("SELECT 1 FROM pg_roles WHERE rolname = %s AND rolsuper", settings.db_superuser):
            raise PreparationRefusedError(f"{settings.db_superuser} is no superuser of this server.")
        cursor.execute("SET lock_timeout = '60s'; SELECT pg_advisory_lock(%s)", (_LOCK,))
        yield session


def _connect(settings: PrepareServerSettings, database: str) -> psycopg2.extensions.connection:
    access = Access(
        settings.db_host,
        settings.db_port,
        settings.db_superuser,
        settings.db_superuser_pass.get_secret_value(),
        settings.db_sslmode,
        settings.db_sslrootcert,
    )
    try:
        connection = access.connect(database)
    except psycopg2.OperationalError as fault:
        where = f"{access.host}:{access.port}"
        raise PreparationRefusedError(f"{access.user} can't log in at {where}: {str(fault).strip()}") from fault
    connection.autocommit = True
    return connection


def _check_version(connection: psycopg2.extensions.connection) -> None:
    if connection.server_version < OLDEST_VERSION:
        major = connection.server_version // 10_000
        raise PreparationRefusedError(f"PostgreSQL 15 or newer is needed; this server is version {major}.")
