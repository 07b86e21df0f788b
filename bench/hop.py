"""The gateway's hop alone: wrk against one gateway process, a stub service on a unix socket behind it.

`python bench/hop.py [SOURCE …]`: each SOURCE is a checkout; their gateways alternate within one run, so that only the
ratios count. A closed loop (32 clients): it hides stalls. The gateway's CPU time for each call is the steadier figure
on a machine that others use too.
"""

import asyncio
import base64
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import cast

import jwt
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CLIENTS, SECONDS, ROUNDS = 32, 3, 3
KEY = Ed25519PrivateKey.generate()
SMALL = json.dumps({"success": True, "data": {"id": "0199aaaa-0000-7000-8000-000000000009", "name": "x" * 80}})


class Stub(asyncio.Protocol):
    """Answers everything at once, nearly for free: what is measured is the gateway."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        path = data.split(b" ", 2)[1]
        answer = ANSWERS["small"]
        if path.startswith(b"/internal/changes"):
            answer = ANSWERS["changes"]
        elif path.startswith(b"/internal/shards"):
            answer = ANSWERS["shard"]
        elif path.startswith(b"/.well-known"):
            answer = ANSWERS["jwks"]
        self.transport.write(answer)


def _answer(body: str) -> bytes:
    head = "HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 21:40:14 GMT\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()


def _jwks() -> dict[str, object]:
    raw = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    return {"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "a" * 16, "x": x}]}


ANSWERS = {
    "small": _answer(SMALL),
    "changes": _answer(json.dumps({"changes": [], "last": 0})),
    "shard": _answer(json.dumps({"shard": "a/shard_0123456789abcdef", "state": "ready"})),
    "jwks": _answer(json.dumps(_jwks())),
}


def _token() -> str:
    now = int(time.time())
    claims = {"iss": "gowebbo", "aud": "gowebbo-api", "role": "owner", "jti": "j" * 32, "iat": now, "exp": now + 900}
    ids = {name: f"0199aaaa-0000-7000-8000-00000000000{n}" for n, name in enumerate(("practice", "sub", "sid"))}
    return jwt.encode({**claims, **ids}, KEY, algorithm="EdDSA", headers={"typ": "at+jwt", "kid": "a" * 16})


def _serve_stub(path: str) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_unix_server(Stub, path)
        await server.serve_forever()

    uvloop.run(serve())


def _start_gateway(source: Path, stub: str, listener: socket.socket) -> subprocess.Popen[bytes]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(f"{source}/{package}/src" for package in ("gateway", "shared")),
        "GATEWAY_SECRET": "0123456789abcdef-hop-fedcba9876543210",
        "ADMIN_PASSWORD": "a-long-admin-password",
        **{f"{name}_SERVICE_URL": f"unix:{stub}" for name in ("AUTH", "TENANT", "PATIENT")},
        "SERVICE_FD": str(listener.fileno()),
    }
    return subprocess.Popen([sys.executable, "-m", "gateway"], env=environment, pass_fds=[listener.fileno()])


def _wait_until_ready(port: int) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").read()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the gateway doesn't become ready")


def _load(port: int, token: str, pid: int) -> tuple[float, float, str]:
    """Calls a second, CPU microseconds for each call, p99."""
    url = f"http://127.0.0.1:{port}/api/v1/patients/0199aaaa-0000-7000-8000-000000000009"
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{SECONDS}", "--latency", "-H", f"Authorization: Bearer {token}", url]
    before_s = _cpu_s(pid)
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(text)
    rate, p99 = re.findall(r"Requests/sec:\s+([\d.]+)", text), re.findall(r"99%\s+(\S+)", text)
    calls = int(re.findall(r"(\d+) requests in", text)[0])
    return float(rate[0]), (_cpu_s(pid) - before_s) / calls * 1e6, p99[0]


def _cpu_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    sources = [Path(source).resolve() for source in sys.argv[1:] or [Path(__file__).parents[1]]]
    token = _token()
    with tempfile.TemporaryDirectory(prefix="hop") as folder:
        stub = f"{folder}/s"
        pid = os.fork()
        if pid == 0:
            _serve_stub(stub)
        listeners = [socket.create_server(("127.0.0.1", 0), backlog=512) for _ in sources]
        gateways = [_start_gateway(one, stub, listener) for one, listener in zip(sources, listeners, strict=True)]
        found: dict[Path, list[tuple[float, float, str]]] = {source: [] for source in sources}
        try:
            for listener in listeners:
                _wait_until_ready(listener.getsockname()[1])
            for _ in range(ROUNDS):
                for source, listener, gateway in zip(sources, listeners, gateways, strict=True):
                    found[source].append(_load(listener.getsockname()[1], token, gateway.pid))
        finally:
            for gateway in gateways:
                gateway.send_signal(signal.SIGINT)
                gateway.wait(15)
            os.kill(pid, signal.SIGKILL)
    first = statistics.median(rate for rate, _, _ in found[sources[0]])
    for source, rounds in found.items():
        rate, cpu_us = (statistics.median(values) for values in ([one[n] for one in rounds] for n in (0, 1)))
        p99 = ", ".join(one[2] for one in rounds)
        print(f"{source}: {rate:,.0f}/s ({rate / first:.2f}), {cpu_us:.1f} µs of CPU, p99 {p99}")


if __name__ == "__main__":
    main()
