"""What the tests of this service share: practices with real shards, a tenant-service on a real socket, signed calls."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import httpx
import psycopg2
from psycopg2 import sql
from pydantic import SecretStr

from gowebbo_stack.testing import PostgresServer
from patient_service.config import Settings
from patient_service.main import create_app
from patient_service.shard_pool import ShardPool
from shared.app import ServiceApp
from shared.context import Caller, ContextSigner, ContextVerifier, SignatureError
from shared.ids import new_id
from shared.shards import PRACTICE_STAMP, new_database_name, shard_password
from shared.whole_request import WholeRequest

GATEWAY_KEY = b"0123456789abcdef-gateway-key-of-tests"
SHARD_KEY = b"fedcba9876543210-shard-key-of-tests!"
OLD_SHARD_KEY = b"fedcba9876543210-shard-key-that-was!"
TEMPLATE_DDL = """
CREATE TABLE patients (
    id uuid PRIMARY KEY,
    name varchar(200) NOT NULL,
    mobile varchar(20) NOT NULL,
    age integer NOT NULL,
    is_deleted smallint NOT NULL DEFAULT 0 CHECK (is_deleted IN (0, 1)),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    version integer NOT NULL DEFAULT 1
);
CREATE INDEX patients_active_idx ON patients (id) WHERE is_deleted = 0;
CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO alembic_version VALUES ('0002');
GRANT SELECT, INSERT, UPDATE ON patients TO shard_rw;
GRANT SELECT ON alembic_version TO shard_rw;
"""
JOHN = {"name": "John Doe", "age": 30, "mobile": "9876543210"}


@dataclass(frozen=True)
class Practice:
    """A practice with its shard."""

    id: str
    database: str
    server: str = "a"

    @property
    def shard(self) -> str:
        return f"{self.server}/{self.database}"

    def caller(self, **changes: str) -> Caller:
        """Its owner, as the gateway signs it."""
        signed = {"practice_id": self.id, "shard": self.shard, "user_id": "u", "session_id": "s", "role": "owner"}
        return Caller(**(signed | changes))


class ShardServer:
    """Makes practices on a PostgreSQL server the way tenant-service does."""

    def __init__(self, postgres: PostgresServer) -> None:
        self.postgres = postgres
        self.template = f"template_{uuid.uuid4().hex[:8]}"

    def prepare(self) -> "ShardServer":
        with contextlib.suppress(psycopg2.errors.DuplicateObject):
            self.run("CREATE ROLE shard_rw NOLOGIN")
        self.run(f"CREATE DATABASE {self.template}")
        self.run(TEMPLATE_DDL, database=self.template)
        return self

    def practice(self, *, key: bytes = SHARD_KEY, stamp: str | None = None) -> Practice:
        """A new practice; its stamp is its own id unless another is named."""
        practice = Practice(str(new_id()), new_database_name())
        with self.connection("postgres") as connection, connection.cursor() as cursor:
            self._clone(cursor, practice, key=key, stamp=stamp or practice.id)
        return practice

    def practices(self, count: int) -> list[Practice]:
        """Many of them, as fast as the server makes them."""
        made = [Practice(str(new_id()), new_database_name()) for _ in range(count)]
        with self.connection("postgres") as connection, connection.cursor() as cursor:
            for practice in made:
                self._clone(cursor, practice, key=SHARD_KEY, stamp=practice.id)
        return made

    def _clone(self, cursor: Any, practice: Practice, *, key: bytes, stamp: str) -> None:
        name, template = sql.Identifier(practice.database), sql.Identifier(self.template)
        cursor.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY wal_log").format(name, template))
        cursor.execute(
            sql.SQL(
                "CREATE ROLE {0} LOGIN PASSWORD {1} CONNECTION LIMIT 8 IN ROLE shard_rw;"
                "ALTER ROLE {0} SET statement_timeout = '5s'; ALTER ROLE {0} SET lock_timeout = '2s';"
                "REVOKE ALL ON DATABASE {0} FROM PUBLIC; GRANT CONNECT ON DATABASE {0} TO {0};"
                "ALTER DATABASE {0} SET {2} = {3}"
            ).format(
                name,
                sql.Literal(scram_verifier(shard_password(key, practice.database))),
                sql.Identifier(*PRACTICE_STAMP.split(".")),
                sql.Literal(stamp),
            )
        )

    def run(self, statement: Any, parameters: Any = None, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Executes as superuser, each statement by itself."""
        with self.connection(database) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def connection(self, database: str) -> Iterator[Any]:
        connection = psycopg2.connect(self.postgres.dsn(database))
        connection.autocommit = True
        try:
            yield connection
        finally:
            connection.close()

    def sessions(self, *practices: Practice) -> int:
        """How many connections the practices' roles hold now."""
        names = [practice.database for practice in practices]
        return self.run("SELECT count(*) FROM pg_stat_activity WHERE usename = ANY (%s)", (names,))[0][0]

    def drop(self, practice: Practice) -> None:
        name = sql.Identifier(practice.database)
        self.run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        self.run(sql.SQL("DROP ROLE {}").format(name))


@dataclass
class TenantService:
    """Answers `/internal/servers` to signed calls of patient-service, on a real socket."""

    servers: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    fails: bool = False
    url: str = ""

    def name(self, key: str, postgres: PostgresServer, **changes: Any) -> None:
        """Tells of a server from now on."""
        entry = {"key": key, "host": postgres.host, "port": postgres.port, "sslmode": "prefer", "sslrootcert": None}
        self.servers = [known for known in self.servers if known["key"] != key]
        self.servers.append({**entry, "max_connections": 200, **changes})

    @contextlib.contextmanager
    def serving(self) -> Iterator["TenantService"]:
        service, verifier = self, ContextVerifier([GATEWAY_KEY])

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked += 1
                sent = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
                try:
                    allowed = verifier.verify(sent).role == "service:patient-service"
                except SignatureError:
                    allowed = False
                status = 503 if service.fails else 200 if allowed and self.path == "/internal/servers" else 401
                body = json.dumps({"servers": service.servers}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{listener.server_port}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            listener.shutdown()
            listener.server_close()


def scram_verifier(password: str) -> str:
    """As tenant-service makes it: one iteration, for the password is no guessable one (RFC 5803)."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    shown = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256$1:{shown[0]}${shown[1]}:{shown[2]}"


def settings_for(tenant: TenantService, **changes: Any) -> Settings:
    """The service's settings; a name can be overridden."""
    values = {
        "gateway_secret": SecretStr(GATEWAY_KEY.decode()),
        "shard_secret": SecretStr(SHARD_KEY.decode()),
        "tenant_service_url": tenant.url,
    }
    return Settings(_env_file=None, **(values | changes))


class ShortWayTransport(httpx.AsyncBaseTransport):
    """Lets requests go the short way, as the server's protocol does, and those that it leaves the long one."""

    def __init__(self, app: ServiceApp) -> None:
        self._app = app
        self._long = httpx.ASGITransport(app)
        self.went_short = 0
        # what WholeRequest needs of its protocol
        self.loop = asyncio.get_running_loop()
        self.tasks: set[asyncio.Task[None]] = set()
        self.transport = self
        self._answered: asyncio.Future[tuple[bytes, bytes]]

    def is_closing(self) -> bool:
        return False

    def send_whole(self, lines: bytes, body: bytes, *, keep_alive: bool) -> None:
        assert keep_alive
        self._answered.set_result((lines, body))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path, target = request.url.raw_path.partition(b"?")[0], request.url.raw_path
        headers = [(name.lower(), value) for name, value in request.headers.raw]
        if request.method == "HEAD" or b"%" in path or "transfer-encoding" in request.headers:
            return await self._long.handle_async_request(request)
        whole = WholeRequest(cast("Any", self), request.method, target, headers, request.content, request_id=None)
        self._answered = self.loop.create_future()
        if not self._app.short_way(whole):
            return await self._long.handle_async_request(request)
        self.went_short += 1
        lines, body = await self._answered
        start, *answered = lines.decode("latin-1").removesuffix("\r\n").split("\r\n")
        return httpx.Response(int(start.split()[1]), headers=[line.split(": ", 1) for line in answered], content=body)


class PatientClient:
    """Calls the service as the gateway would."""

    def __init__(self, app: ServiceApp) -> None:
        self.app = app
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://patients", timeout=30)
        self._signer = ContextSigner([GATEWAY_KEY])

    async def call(self, who: Practice | Caller, method: str, path: str = "", **content: Any) -> httpx.Response:
        """One signed call below `/api/v1/patients`."""
        caller = who.caller() if isinstance(who, Practice) else who
        signed = {name.decode(): value.decode() for name, value in self._signer.headers(caller)}
        headers = signed | content.pop("headers", {})
        if (body := content.pop("json", None)) is not None:
            content["content"] = json.dumps(body)  # in ASCII, so that lone surrogates can be sent too
            headers = {"Content-Type": "application/json"} | headers
        return await self.http.request(method, f"/api/v1/patients{path}", headers=headers, **content)

    async def add(self, practice: Practice, **changes: Any) -> dict[str, Any]:
        """A patient of this practice."""
        answer = await self.call(practice, "POST", json=JOHN | changes)
        assert answer.status_code == 201, answer.text
        patient: dict[str, Any] = answer.json()["result"]
        return patient

    async def answers(self, practice: Practice, *statuses: int) -> bool:
        """Whether the list is answered with one of these statuses now."""
        return (await self.call(practice, "GET")).status_code in statuses

    async def names(self, practice: Practice, **query: Any) -> list[str]:
        """The names in this practice's list."""
        answer = await self.call(practice, "GET", params=query)
        assert answer.status_code == 200, answer.text
        return [patient["name"] for patient in answer.json()["result"]["data"]]


async def eventually(holds: Callable[[], Awaitable[object] | object], *, limit_s: float = 30) -> None:
    """Waits until a condition, a plain one or a coroutine's, holds."""
    async with asyncio.timeout(limit_s):
        while True:
            found = holds()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.01)


def pool_of(service: PatientClient) -> ShardPool:
    pool = service.app.state.pool
    assert isinstance(pool, ShardPool)
    return pool


async def at_rest(pool: ShardPool, key: str = "a") -> None:
    """Waits until nobody uses or awaits a connection, and checks that the counts agree with the connections."""
    slots = pool.slots[key]
    await eventually(lambda: not (pool.waiting or slots.used != slots.idle or slots.contested or pool._tasks))
    assert slots.used == sum(len(lane.connections) for lane in pool._lanes.values())
    assert all(lane.size for lane in pool._lanes.values())


@contextlib.contextmanager
def holding_table(shard_server: ShardServer, practice: Practice):
    with shard_server.connection(practice.database) as connection:
        connection.autocommit = False
        connection.cursor().execute("LOCK TABLE patients IN ACCESS EXCLUSIVE MODE")
        yield


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[PatientClient]:
    """The production application with its lifespan, in this event loop."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        client = PatientClient(app)
        async with client.http:
            yield client
