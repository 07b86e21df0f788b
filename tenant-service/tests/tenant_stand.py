"""What these tests stand on: a central database of their own, the service's real parts, and callers of it."""

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

import httpx
import psycopg2
import psycopg2.extensions
import uvloop
from prometheus_client import CollectorRegistry

from gowebbo_stack.testing import PostgresServer
from shared.context import Caller, ContextSigner
from shared.ids import new_id
from shared.server import make_server
from shared.shards import shard_password
from tenant_service import migrating, preparation
from tenant_service.config import DatabaseSettings, PrepareSettings, Settings
from tenant_service.main import create_app
from tenant_service.provisioning import Provisioning
from tenant_service.reconciliation import Reconciler
from tenant_service.servers import ServerRegistry
from tenant_service.storage.directory import Shard
from tenant_service.warm_pool import WarmPool

GATEWAY_SECRET = "gateway-0123456789abcdef0123456789abcdef"
SHARD_SECRET = "shards-fedcba9876543210fedcba9876543210"
AUTH = Caller(role="service:auth-service")
GATEWAY = Caller(role="service:gateway")
ADMIN = Caller(role="admin")
DEADLINE_S = 30.0


def wait_for(condition: Callable[[], Any], *, deadline_s: float = DEADLINE_S) -> Any:
    """Polls until the condition is truthy and returns it."""
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def environment_of(postgres: PostgresServer, database: str) -> dict[str, str]:
    """The environment of the service and its commands. Roles are the server's, so all tests share their passwords."""
    return {
        "DB_HOST": postgres.host,
        "DB_PORT": str(postgres.port),
        "DB_NAME": database,
        "DB_SUPERUSER": postgres.superuser,
        "DB_SUPERUSER_PASS": postgres.password,
        "AUTH_DB_PASS": postgres.password,
        "TENANT_DB_PASS": postgres.password,
        "DB_PASS": postgres.password,
        "SHARD_SECRET": SHARD_SECRET,
        "GATEWAY_SECRET": GATEWAY_SECRET,
    }


def run_cli(command: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Runs an operator command in a process of its own, with nothing else in its environment."""
    return subprocess.run(
        [sys.executable, "-m", "tenant_service.cli", command],
        env={"PATH": os.defpath, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@cache
def _interrupting() -> "tuple[subprocess.Popen[str], IO[str]]":
    """This session's process that does deeds and has them interrupted, and what it complains of."""
    complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the session
    command = [sys.executable, str(Path(__file__).with_name("tenant_interrupted.py"))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True)
    return process, complaints


def interrupted(fleet: "Fleet", deed: str, practice_id: object, *where: str) -> int:
    """Does a deed in a process that is killed at a step or after some milliseconds (see tenant_interrupted.py)."""
    process, complaints = _interrupting()
    assert process.stdin
    assert process.stdout
    environment = {"PATH": os.defpath, **fleet.environment}
    order = {"environment": environment, "words": [deed, str(practice_id), *where]}
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    ended, _, _ = select.select([process.stdout], [], [], 60)
    assert ended, "the deed takes too long"
    code = int(process.stdout.readline())
    complaints.seek(0)
    assert code in (0, -signal.SIGKILL), complaints.read()
    return code


@dataclass
class Fleet:
    """A directory of its own on the shared server, with the parts of the service that work on it."""

    postgres: PostgresServer
    database: str
    settings: Settings
    further: dict[str, str] = field(default_factory=dict)
    """Of the environment, beside what every fleet has."""

    def __post_init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """New parts, as a restarted process has them."""
        self.app = create_app(self.settings)
        self.servers: ServerRegistry = self.app.state.servers
        self.provisioning: Provisioning = self.app.state.provisioning
        self.pool: WarmPool = self.app.state.pool

    @property
    def environment(self) -> dict[str, str]:
        size = self.settings.shard_warm_pool
        return environment_of(self.postgres, self.database) | {"SHARD_WARM_POOL": str(size)} | self.further

    def shard(self) -> Shard:
        """A ready shard of a new practice."""
        return self.provisioning.ensure(new_id())[0]

    def sweep(self) -> None:
        """One round of a new process's reconciler."""
        self.servers.refresh()
        assert self.reconciler().sweep()

    def reconciler(self, metrics: CollectorRegistry | None = None) -> Reconciler:
        """A new process's reconciler."""
        return Reconciler(
            self.app.state.engine, self.servers, self.provisioning, self.pool, metrics=metrics or CollectorRegistry()
        )

    def query(self, query: str, *parameters: Any, database: str | None = None) -> list[tuple[Any, ...]]:
        """The superuser's look at the central database, or at another one."""
        return query_at(self.postgres.dsn(database or self.database), query, *parameters)

    def databases(self) -> dict[str, bool]:
        """This fleet's shard databases, and whether they take connections."""
        rows = self.query(
            "SELECT datname, datallowconn FROM pg_database JOIN pg_db_role_setting ON setdatabase = oid"
            " WHERE setconfig @> ARRAY['gowebbo.fleet_id=' || (SELECT id FROM tenant.fleet)]"
        )
        return dict(rows)

    def warm(self, state: str = "ready") -> list[str]:
        """The databases of the warm pool in this state, the oldest first."""
        query = "SELECT database FROM tenant.warm_shards WHERE state = %s ORDER BY created_at"
        return [row[0] for row in self.query(query, state)]

    def stamp_of(self, database: str) -> str | None:
        """The practice that a database says it belongs to."""
        rows = self.query(
            "SELECT split_part(setting, '=', 2) FROM pg_database JOIN pg_db_role_setting ON setdatabase = oid,"
            " unnest(setconfig) setting WHERE datname = %s AND setting LIKE 'gowebbo.practice_id=%%'",
            database,
        )
        return rows[0][0] if rows else None

    def change(self, statement: str, *parameters: Any) -> None:
        """Changes the central database, as nobody but a test or an accident does."""
        execute_at(self.postgres.dsn(self.database), statement, *parameters)

    def state_of(self, practice_id: uuid.UUID) -> str | None:
        rows = self.query("SELECT state FROM tenant.shards WHERE practice_id = %s", str(practice_id))
        return rows[0][0] if rows else None

    def log_in(self, role: str, database: str) -> psycopg2.extensions.connection:
        """Connects as a shard's role, with its derived password."""
        return psycopg2.connect(
            host=self.postgres.host,
            port=self.postgres.port,
            user=role,
            password=shard_password(SHARD_SECRET.encode(), role),
            dbname=database,
        )

    def store_patient(self, database: str) -> None:
        """Adds a row as the shard's own role does."""
        with (
            contextlib.closing(self.log_in(database, database)) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(
                "INSERT INTO patients (id, name, mobile, age) VALUES (%s, 'A', '12345', 3)", (str(uuid.uuid4()),)
            )

    def drop_everything(self) -> None:
        """Removes this fleet's databases and roles from the shared server."""
        names = [row[0] for row in self.query("SELECT datname FROM pg_database WHERE datname LIKE %s", "shard\\_%")]
        mine = set(self.databases()) | {
            row[0]
            for row in self.query(
                "SELECT database FROM tenant.shards WHERE database IS NOT NULL"
                " UNION SELECT database FROM tenant.warm_shards"
            )
        }
        self.app.state.engine.dispose()
        self.servers.close()
        with ThreadPoolExecutor(8) as threads:  # each drop waits for a checkpoint, which they share
            list(threads.map(self._drop_shard, mine & set(names)))
        execute_at(self.postgres.dsn(), f'DROP DATABASE "{self.database}" WITH (FORCE)')

    def _drop_shard(self, name: str) -> None:
        execute_at(self.postgres.dsn(), f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        execute_at(self.postgres.dsn(), f'DROP ROLE IF EXISTS "{name}"')


def query_at(dsn: str, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with contextlib.closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return cursor.fetchall()


def execute_at(dsn: str, statement: str, *parameters: Any) -> None:
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def new_fleet(postgres: PostgresServer, *, further: dict[str, str] | None = None, **settings: Any) -> Fleet:
    """Prepares and migrates a central database of its own. Nothing is made ahead unless `shard_warm_pool` says so."""
    settings = {"shard_warm_pool": 0, **settings}
    database = f"central_{secrets.token_hex(6)}"
    values = {name.lower(): value for name, value in environment_of(postgres, database).items()}
    preparation.prepare(PrepareSettings(_env_file=None, **values))
    migrating.upgrade_central(DatabaseSettings(_env_file=None, **values))
    return Fleet(postgres, database, Settings(_env_file=None, **values | settings), further or {})


class Tenants:
    """Callers of the running service."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=DEADLINE_S)
        self._signer = ContextSigner([GATEWAY_SECRET.encode()])

    def call(self, method: str, path: str, *, caller: Caller | None = AUTH, **content: Any) -> httpx.Response:
        """Calls as this caller; unsigned as nobody."""
        signed = self._signer.headers(caller) if caller else ()
        headers = {name.decode(): value.decode() for name, value in signed}
        return self._client.request(method, path, headers=headers, **content)

    def put(self, practice_id: object) -> httpx.Response:
        return self.call("PUT", f"/internal/shards/{practice_id}")

    def get(self, practice_id: object) -> httpx.Response:
        return self.call("GET", f"/internal/shards/{practice_id}", caller=GATEWAY)

    def delete(self, practice_id: object) -> httpx.Response:
        return self.call("DELETE", f"/internal/shards/{practice_id}")

    def is_ready(self) -> bool:
        return self.call("GET", "/readyz", caller=None).status_code == 200


@contextlib.contextmanager
def serving(fleet: Fleet) -> Iterator[Tenants]:
    """The production application on a socket of its own; not necessarily ready."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    host, port = listener.getsockname()
    server = make_server(fleet.app, host=host, port=port)
    thread = threading.Thread(target=lambda: uvloop.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield Tenants(f"http://{host}:{port}")
    finally:
        server.should_exit = True
        thread.join(DEADLINE_S)
