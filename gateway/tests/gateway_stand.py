"""A gateway on a real port in front of three hand-made services on real sockets: all in one thread of its own."""

import asyncio
import base64
import json
import re
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jwt
import uvicorn
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.config import Settings
from gateway.directory import Directory
from gateway.keys import KeyRing
from gateway.main import Gateway, create_app
from gateway.routes import Route
from gateway.serving import make_edge_server
from shared.app import create_service_app
from shared.context import Caller
from shared.server import make_server

SECRET = "0123456789abcdef-gateway-stand-secret-fedcba"
ADMIN = ("platform", "a-long-admin-password")
PRACTICE = "0199aaaa-0000-7000-8000-000000000001"
PERSON = "0199aaaa-0000-7000-8000-000000000002"
SESSION = "0199aaaa-0000-7000-8000-000000000003"
SHARD = "a/shard_0123456789abcdef"
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]

Answer = Callable[[Request], Awaitable[Response]]


def filled(route: Route, value: str) -> str:
    """The route's address with this in each place for an id."""
    return re.sub(r"\{.*?\}", value, route.template)


def eventually(condition: Callable[[], Any], *, within_s: float = 10.0) -> Any:
    """Polls until the condition holds and returns its value."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "it didn't happen in time"
        time.sleep(0.02)


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Signer:
    """What auth-service signs tokens with."""

    def __init__(self, kid: str = "aaaaaaaaaaaaaaaa") -> None:
        self.kid = kid
        self.private = Ed25519PrivateKey.generate()

    @property
    def public_bytes(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def jwk(self) -> dict[str, str]:
        x = base64url(self.public_bytes)
        return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.kid, "x": x}

    def token(self, header: dict[str, Any] | None = None, **changed: Any) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": "gowebbo",
            "aud": "gowebbo-api",
            "sub": PERSON,
            "practice": PRACTICE,
            "sid": SESSION,
            "role": "owner",
            "jti": str(uuid.uuid4()),
            "iat": now,
            "exp": now + 600,
            **changed,
        }
        claims = {name: value for name, value in claims.items() if value is not ...}
        headers = {"typ": "at+jwt", "kid": self.kid, **(header or {})}
        return jwt.encode(claims, self.private, algorithm="EdDSA", headers=headers)


@dataclass
class Call:
    """What a service saw of a request."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    caller: Caller

    def header(self, name: str) -> str | None:
        values = [value.decode("latin-1") for key, value in self.headers if key == name.encode()]
        assert len(values) < 2, f"{name} is repeated"
        return values[0] if values else None


class StandService:
    """A service behind the gateway: a real signature check, scripted answers, a record of what came in."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[Call] = []
        self.seen: list[str] = []
        self.answers: dict[tuple[str, str], Answer] = {}
        self.missing: dict[str, str] = {}
        self.hangs = False
        self.cancelled = 0
        self.app = create_service_app(title=name, keys=[SECRET.encode()], ready=self._ready)
        self.app.router.routes = [r for r in self.app.router.routes if getattr(r, "path", "") != "/openapi.json"]
        self.app.add_route("/{path:path}", self._answer, methods=METHODS)

    async def _ready(self) -> dict[str, str]:
        if self.hangs:
            await asyncio.sleep(60)
        return self.missing

    async def _answer(self, request: Request) -> Response:
        target = request.scope["raw_path"].decode("latin-1")
        self.seen.append(target)
        scripted = self.answers.get((request.method, target)) or self.answers.get(("*", target.rsplit("/", 1)[0]))
        if scripted is None and target.startswith(("/internal", "/.well-known", "/openapi")):
            return Response(status_code=404)
        try:
            body = await request.body()
            if not target.startswith(("/internal", "/.well-known", "/openapi")):
                query = request.scope["query_string"].decode("latin-1")
                headers = list(request.scope["headers"])
                where = f"{target}?{query}" if query else target
                self.calls.append(Call(request.method, where, headers, body, request.scope["state"]["caller"]))
            if scripted:
                return await scripted(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return JSONResponse({"success": True, "status": 200, "message": self.name, "echo": len(body)})


def constant(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    async def answer(_: Request) -> Response:
        return JSONResponse(content, status_code=status, headers=headers)

    return answer


@dataclass
class Stand:
    """The three services, their gateway, and what they know. The second process of patient-service is `patient-2`."""

    settings: dict[str, Any] = field(default_factory=dict)
    revoked_at_start: list[str] = field(default_factory=list)
    suspended_at_start: list[str] = field(default_factory=list)
    patient_processes: int = 1
    warms_up: bool = False
    """Whether people have called before the test, so that their calls go the short way where they may."""
    signer: Signer = field(default_factory=Signer)
    _bearers: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.auth, self.tenant, self.patient = map(StandService, ("auth-service", "tenant-service", "patient-service"))
        self.services = {"auth": self.auth, "tenant": self.tenant, "patient": self.patient}
        for number in range(2, self.patient_processes + 1):
            self.services[f"patient-{number}"] = StandService(f"patient-service-{number}")
        # never reset: the numbers of a feed don't go back
        self.suspensions = [("practice-suspended", one) for one in self.suspended_at_start]
        self._sockets = tempfile.TemporaryDirectory(prefix="gw")
        self._servers: dict[str, tuple[uvicorn.Server, asyncio.Task[None]]] = {}
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.reset()
        for name in self.services:
            self.start_service(name)
        self.gateway, self.port = self._start_gateway()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=20)
        eventually(lambda: self.client.get("/readyz").status_code == 200)

    def reset(self) -> None:
        """Forgets what was recorded and scripted."""
        self.revoked = [*self.revoked_at_start]
        self.signers = [self.signer]
        self.shards = {PRACTICE: SHARD}
        self.moves: list[str] = []
        for service in self.services.values():
            service.calls.clear()
            service.seen.clear()
            service.answers.clear()
            service.missing = {}
        self.auth.answers["GET", "/.well-known/jwks.json"] = self._jwks
        self.auth.answers["GET", "/internal/changes"] = self._auth_changes
        self.tenant.answers["GET", "/internal/changes"] = self._tenant_changes
        self.tenant.answers["*", "/internal/shards"] = self._shard

    def bearer(self, **changed: Any) -> dict[str, str]:
        """Headers of a person who is logged in."""
        if not self.warms_up:
            return {"Authorization": f"Bearer {self.signer.token(**changed)}"}
        who = repr(changed)
        if who not in self._bearers:
            self._bearers[who] = {"Authorization": f"Bearer {self.signer.token(**changed)}"}
        self._warm_up(self._bearers[who])
        return self._bearers[who]

    def _warm_up(self, headers: dict[str, str]) -> None:
        """A call of which nothing is recorded."""
        records = [record for service in self.services.values() for record in (service.calls, service.seen)]
        before = [len(record) for record in records]
        with suppress(httpx.HTTPError):
            self.client.get("/api/v1/patients/warming-up", headers=headers)
        for record, length in zip(records, before, strict=True):
            del record[length:]

    def start_service(self, name: str) -> None:
        path = Path(self._sockets.name) / f"{name}.sock"
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(200)
        self._start(name, make_server(self.services[name].app, host="", port=0), listener)

    def stop_service(self, name: str) -> None:
        """As if it had been killed: open connections break."""

        self.run(self._stop(name))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine on the stand's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def cut_patient_service(self) -> None:
        """All its connections break, in mid call; it goes on listening."""

        async def cut() -> None:
            server, _ = self._servers["patient"]
            for connection in list(server.server_state.connections):
                connection.transport.abort()

        self.run(cut())

    def raw(self, data: bytes, *, timeout_s: float = 15.0) -> bytes:
        """Sends bytes, reads until the gateway closes (or answers nothing for a while)."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            with suppress(ConnectionError):
                connection.sendall(data)
            received = bytearray()
            with suppress(ConnectionError):
                while part := connection.recv(65536):
                    received += part
            return bytes(received)

    @property
    def keys(self) -> KeyRing:
        """The gateway's key ring."""
        return self.gateway.app._forwarder._authenticator._verifier._keys

    @property
    def directory(self) -> Directory:
        """What the gateway remembers of shards."""
        return self.gateway.app._forwarder._authenticator._directory

    def close(self) -> None:
        self.client.close()

        async def stop_all() -> None:
            await asyncio.gather(*(self._stop(name) for name in list(self._servers)))

        self.run(stop_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._sockets.cleanup()

    def _start_gateway(self) -> tuple[Gateway, int]:
        urls: dict[str, str] = {}
        for name in self.services:
            setting, url = f"{name.partition('-')[0]}_service_url", f"unix:{self._sockets.name}/{name}.sock"
            urls[setting] = f"{urls[setting]},{url}" if setting in urls else url
        settings = Settings(
            _env_file=None,
            **{
                "gateway_secret": SECRET,
                "admin_user_name": ADMIN[0],
                "admin_password": ADMIN[1],
                **urls,
                **self.settings,
            },
        )
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        gateway = create_app(settings)
        self._start("gateway", make_edge_server(gateway.app, host="", port=0), listener)
        return gateway, listener.getsockname()[1]

    def _start(self, name: str, server: uvicorn.Server, listener: socket.socket) -> None:
        async def start() -> None:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            self._servers[name] = (server, serving)

        self.run(start())
        eventually(lambda: server.started)

    async def _stop(self, name: str) -> None:
        """Cuts the connections and ends the server with its lifespan (uvicorn's `force_exit` would leave that out)."""
        server, serving = self._servers.pop(name)
        server.should_exit = True
        for task in list(server.server_state.tasks):
            task.cancel()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await serving

    async def _jwks(self, _: Request) -> Response:
        return JSONResponse({"keys": [signer.jwk() for signer in self.signers]})

    async def _auth_changes(self, request: Request) -> Response:
        suspensions = [{"kind": kind, "practice_id": one} for kind, one in self.suspensions]
        revoked = [{"kind": "session-revoked", "session_id": one} for one in self.revoked]
        return _changes(request, suspensions + revoked, signing_key=self.signers[0].kid)

    async def _tenant_changes(self, request: Request) -> Response:
        return _changes(request, [{"kind": "shard-moved", "practice_id": one} for one in self.moves])

    async def _shard(self, request: Request) -> Response:
        shard = self.shards.get(request.scope["path"].rsplit("/", 1)[1])
        if shard is None:
            return Response(status_code=404)
        return JSONResponse({"shard": shard, "database": shard.partition("/")[2], "state": "ready"})


def _changes(request: Request, every: list[dict[str, Any]], **more: Any) -> Response:
    after = int(request.query_params.get("after", 0))
    changes = [{"seq": number, **one} for number, one in enumerate(every, start=1)]
    answer: dict[str, Any] = {"changes": [one for one in changes if one["seq"] > after], "last": len(changes)}
    answer |= more
    if after > len(changes):
        answer |= {"reset": True, "changes": changes}
    return Response(json.dumps(answer), media_type="application/json")


def answers_in(raw: bytes) -> list[int]:
    """The statuses of the answers in a stream of bytes."""
    return [int(part[:3]) for part in raw.split(b"HTTP/1.1 ")[1:]]


def nothing_was_forwarded(stand: Stand) -> bool:
    """Beside what the gateway asks itself."""
    own = ("/internal/changes", "/.well-known/jwks.json", f"/internal/shards/{PRACTICE}")
    return not [path for service in stand.services.values() for path in service.seen if path not in own]
