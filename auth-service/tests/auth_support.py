"""What the tests of auth-service stand on: the running service, tenant-service's place, callers, waiting."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg2
from fastapi import FastAPI
from pydantic import SecretStr

from auth_service.config import Settings
from shared.context import Caller, ContextSigner, ContextVerifier
from shared.ids import new_id
from shared.server import make_server

GATEWAY_SECRET = "gateway-0123456789abcdef0123456789abcdef"
JWT_SECRET = "jwt-fedcba9876543210fedcba9876543210"
PASSWORD = "securepassword"
ANYBODY = Caller(client_address="192.0.2.1")
ADMIN = Caller(role="admin")
GATEWAY = Caller(role="service:gateway")
NOTIFIER = Caller(role="service:notifier")
DEADLINE_S = 30.0


def member(session_id: str, *, role: str = "owner", **changed: str) -> Caller:
    """Somebody who has logged in, as the gateway would say it."""
    known = {"user_id": str(new_id()), "practice_id": str(new_id()), "client_address": "192.0.2.1"} | changed
    return Caller(session_id=session_id, role=role, **known)


def wait_for(condition: Callable[[], Any], *, deadline_s: float = DEADLINE_S) -> Any:
    """Polls until the condition is truthy and returns it."""
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def caller_of(answer: httpx.Response, **changed: str) -> Caller:
    """Who calls with the token of this answer, as the gateway would say it."""
    claims = jwt.decode(answer.json()["token"], options={"verify_signature": False})
    known = {
        "practice_id": claims["practice"],
        "user_id": claims["sub"],
        "session_id": claims["sid"],
        "role": claims["role"],
        "scope": claims.get("scope", ""),
        "client_address": ANYBODY.client_address,
    }
    return Caller(**{**known, **changed})


class FakeTenant:
    """tenant-service as auth-service sees it, over real HTTP: keeps shards, and fails on request.

    `mode` is `ok`, `error` (500), `hang` (until `resume`), `drop` (the connection breaks before the answer),
    `drop-after` (the shard is made, then the connection breaks) or `nonsense`.
    """

    def __init__(self) -> None:
        self.mode = "ok"
        self.shards: dict[str, str] = {}
        self.undone: set[str] = set()
        self.puts: list[str] = []
        self.releases: list[str] = []
        self.erased: list[str] = []
        self.exports: list[dict[str, Any]] = []
        self.unsigned = 0
        self.resume = threading.Event()
        self._lock = threading.Lock()
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """(Again) on the same port."""
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """Nobody listens any more, open connections break."""
        self._server.shutdown()
        self._thread.join()
        self._server.break_connections()
        self._server.socket.close()
        mode, self.mode = self.mode, "drop"
        self.resume.set()
        self._server.server_close()
        self.mode = mode

    def put(self, practice_id: str) -> tuple[int, dict[str, str]]:
        with self._lock:
            if practice_id in self.undone:
                return 409, {}
            database = self.shards.setdefault(practice_id, f"shard_{practice_id.replace('-', '')[-20:]}")
        return 200, {"practice_id": practice_id, "shard": f"a/{database}", "database": database, "state": "ready"}

    def delete(self, practice_id: str) -> tuple[int, dict[str, str]]:
        with self._lock:
            self.shards.pop(practice_id, None)
            self.undone.add(practice_id)
            self.releases.append(practice_id)
        return 200, {}

    def erase(self, practice_id: str, _: bytes) -> tuple[int, dict[str, Any]]:
        with self._lock:
            database = self.shards.pop(practice_id, None)
            self.undone.add(practice_id)
            self.erased.append(practice_id)
        return 200, {"database": database, "backup_files": 2}

    def export(self, practice_id: str, content: bytes) -> tuple[int, dict[str, Any]]:
        order = json.loads(content)
        if order["to"] == "/forbidden":
            return 409, {"detail": "/forbidden can't be written to: Permission denied."}
        self.exports.append(order)
        return 201, {"path": f"{order['to']}/{practice_id}.zip", "rows": 7}


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], tenant: FakeTenant) -> None:
        self.tenant = tenant
        self._connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def break_connections(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_PUT(self) -> None:
        tenant, practice_id = self._enter()
        tenant.puts.append(practice_id)
        if tenant.mode == "drop-after":
            tenant.put(practice_id)
        self._behave(tenant.put, practice_id)

    def do_POST(self) -> None:
        """Erase and export, by the last part of the path."""
        self._enter()
        practice_id, _, deed = self.path.removeprefix("/internal/shards/").partition("/")
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._behave(self.server.tenant.erase if deed == "erase" else self.server.tenant.export, practice_id, content)

    def do_DELETE(self) -> None:
        tenant, practice_id = self._enter()
        self._behave(tenant.delete, practice_id)

    def do_GET(self) -> None:
        self._answer(200 if self.server.tenant.mode == "ok" else 503, {})

    def _enter(self) -> tuple[FakeTenant, str]:
        sent = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        if ContextVerifier([GATEWAY_SECRET.encode()]).verify(sent).role != "service:auth-service":
            self.server.tenant.unsigned += 1
        return self.server.tenant, self.path.rpartition("/")[2]

    def _behave(self, deed: Callable[..., tuple[int, dict[str, Any]]], *arguments: Any) -> None:
        tenant = self.server.tenant
        if tenant.mode == "hang":
            tenant.resume.wait(DEADLINE_S)
        if tenant.mode.startswith("drop"):
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif tenant.mode == "error":
            self._answer(500, {})
        elif tenant.mode == "nonsense":
            self._answer(200, {"shard": "no shard's name"})
        else:
            self._answer(*deed(*arguments))

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Client:
    """Calls the service as the gateway would on somebody's behalf."""

    def __init__(self, url: str) -> None:
        self._signer = ContextSigner([GATEWAY_SECRET.encode()])
        self.http = httpx.Client(base_url=url, timeout=DEADLINE_S, limits=httpx.Limits(max_connections=200))

    def call(
        self, method: str, path: str, body: Any = None, *, caller: Caller = ANYBODY, **extra: Any
    ) -> httpx.Response:
        headers = {name.decode(): value.decode() for name, value in self._signer.headers(caller)}
        headers.update(extra.pop("headers", {}))
        if body is not None:
            extra["content"] = body if isinstance(body, bytes) else json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        return self.http.request(method, path, headers=headers, **extra)

    def sign_up(self, email: str = "clinic@example.com", **changed: Any) -> httpx.Response:
        body = {"name": "Sunrise Clinic", "email": email, "password": PASSWORD} | changed
        return self.call("POST", "/api/v1/practices/signup", body)

    def log_in(self, email: str = "clinic@example.com", password: str = PASSWORD, **extra: Any) -> httpx.Response:
        return self.call("POST", "/api/v1/practices/login", {"email": email, "password": password}, **extra)


@dataclass
class Auth:
    """A running auth-service."""

    app: FastAPI
    client: Client
    settings: Any = field(repr=False)


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The production server in a thread; its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        server = make_server(app, host="127.0.0.1", port=0)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_for(lambda: server.started or not thread.is_alive())
            assert server.started, "the service did not start"
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Central:
    """The test's central database, looked into and disturbed as its superuser."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._connection = psycopg2.connect(dsn)
        self._connection.autocommit = True

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str, *values: Any) -> Any:
        return self.rows(query, *values)[0][0]

    def mailed(self, event_type: str) -> list[dict[str, str]]:
        """The payloads of the mails of a kind, in their order."""
        found = self.rows("SELECT payload FROM auth.outbox WHERE type = %s ORDER BY event", event_type)
        return [payload for (payload,) in found]

    def audited(self) -> list[tuple[str, str]]:
        """Actions and outcomes of the audit, in their order."""
        return self.rows("SELECT action, outcome FROM auth.audit ORDER BY id")

    def add_people(self, count: int) -> None:
        """Copies of the only person, `known1@example.com` and so on: many accounts for the price of one hash."""
        self.rows(
            "WITH one AS (SELECT name, password FROM auth.people), copies AS ("
            " INSERT INTO auth.people (id, email, email_key, name, password)"
            " SELECT gen_random_uuid(), mail, mail, name, password"
            " FROM one, generate_series(1, %s) n, concat('known', n, '@example.com') mail RETURNING id)"
            " INSERT INTO auth.memberships (person_id, practice_id, role)"
            " SELECT copies.id, practices.id, 'owner' FROM copies, auth.practices",
            count,
        )

    def age_signups(self) -> None:
        """Makes what is being provisioned look abandoned."""
        self.rows("UPDATE auth.practices SET created_at = created_at - interval '1 minute'")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        """A cursor in a transaction of its own, rolled back at the end."""
        connection = psycopg2.connect(self.dsn)
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def close(self) -> None:
        self._connection.close()


class ServiceProcess:
    """auth-service as a process of its own, to be killed at a moment of the test's choice."""

    def __init__(self, settings: Settings, log: Path) -> None:
        with socket.socket() as listener, log.open("w") as output:
            listener.bind(("127.0.0.1", 0))
            listener.listen(128)
            port = listener.getsockname()[1]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "auth_service"],
                env=environment_of(settings) | {"SERVICE_FD": str(listener.fileno())},
                pass_fds=[listener.fileno()],
                cwd=log.parent,
                stdout=output,
                stderr=output,
            )
        self.client = Client(f"http://127.0.0.1:{port}")
        wait_for(lambda: self._is_up(log))

    def _is_up(self, log: Path) -> bool:
        assert self._process.poll() is None, log.read_text()
        return self.client.http.get("/livez").status_code == 200

    def kill(self) -> None:
        """SIGKILL: it gets no chance to clear up."""
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """SIGTERM; the exit status."""
        self._process.terminate()
        return self._process.wait(DEADLINE_S)

    def sign_up_in_background(self, threads: Executor) -> None:
        """A client whose call will break with the process."""

        def call() -> None:
            with contextlib.suppress(httpx.TransportError):
                self.client.sign_up()

        threads.submit(call)


def environment_of(settings: Settings) -> dict[str, str]:
    found = {"PATH": os.defpath}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is not None:
            found[name.upper()] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return found
