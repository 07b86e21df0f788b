"""`make bench`: starts an embedded stack of its own, measures it on this machine and writes bench/results.md.

Figures of one run on one machine: compare the rows of a run, not two machines.
"""

import asyncio
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import load

ROUND_S = 8.0
CLIENTS = 32
GOWEBBO = Path(sys.executable).with_name("gowebbo")
RESULTS = Path(__file__).with_name("results.md")


def main() -> None:
    """Measures and writes."""
    with tempfile.TemporaryDirectory(prefix="gowebbo-bench-") as home, stack(Path(home)) as (port, status, ready_s):
        supervisor = status.pop("supervisor")
        memory = {name: sum(map(pss_mb, tree(pids_of(entry)))) for name, entry in status.items()}
        memory["supervisor"] = pss_mb(supervisor["pid"])  # alone: everything else descends from it
        rows = asyncio.run(measure(port))
    RESULTS.write_text(report(ready_s, memory, rows))
    sys.stdout.write(RESULTS.read_text())


@contextmanager
def stack(home: Path) -> Iterator[tuple[int, dict[str, Any], float]]:
    """A running stack in `home`: its port, its `status --json`, the seconds until it was ready from nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "GOWEBBO_HOME": str(home / "data"), "PORT": str(port)}
    started = time.perf_counter()
    log = (home / "up.log").open("w")
    up = subprocess.Popen([GOWEBBO, "up"], env=environment, stdout=log, stderr=log, cwd=home)
    try:
        wait_ready(up, port)
        ready_s = time.perf_counter() - started
        shown = subprocess.run(
            [GOWEBBO, "status", "--json"], env=environment, cwd=home, check=True, capture_output=True
        )
        time.sleep(5)  # at rest: caches of the start-up are given back
        yield port, {**json.loads(shown.stdout), "supervisor": {"pid": up.pid}}, ready_s
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(timeout=30)
        log.close()


def wait_ready(up: subprocess.Popen[bytes], port: int, *, timeout_s: float = 120) -> None:
    """Until /readyz is 200. Raises RuntimeError when the stack ends or takes longer."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and up.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise RuntimeError("the stack did not become ready")


def pids_of(entry: dict[str, Any]) -> list[int]:
    """The processes of one entry of `status --json`."""
    return [pid for pid in entry.get("pids") or [entry.get("pid")] if pid]


def tree(pids: list[int]) -> list[int]:
    """These processes and all their descendants, on Linux."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended while we looked
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, waiting = [], list(pids)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def pss_mb(pid: int) -> float:
    """A process's share of memory, with what it shares divided among the sharers."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


async def measure(port: int) -> list[tuple[str, load.Load]]:
    """Every row of the table."""
    sign_ups = await load.run(port, sign_up_of("alone"), clients=1, seconds=ROUND_S)
    crowd = await load.run(port, sign_up_of("crowd"), clients=CLIENTS, seconds=ROUND_S)
    tokens = [await log_in(port, email("alone", n)) for n in range(10)]
    body = json.dumps({"name": "Patient A", "age": 30, "mobile": "9876543210"}).encode()
    for n in range(20 * len(tokens)):
        await call(port, load.post("/api/v1/patients", body, tokens[n % len(tokens)]))
    credentials = json.dumps({"email": email("alone", 0), "password": PASSWORD}).encode()

    async def at_full_load(request: load.Request) -> load.Load:
        return await load.run(port, request, clients=CLIENTS, seconds=ROUND_S)

    return [
        ("sign-up, 1 client", sign_ups),
        (f"sign-up, {CLIENTS} clients", crowd),
        ("log-in", await at_full_load(lambda _: load.post("/api/v1/practices/login", credentials))),
        ("list of 20, one practice", await at_full_load(lambda _: load.get("/api/v1/patients?limit=20", tokens[0]))),
        (
            f"list of 20, {len(tokens)} practices",
            await at_full_load(lambda n: load.get("/api/v1/patients?limit=20", tokens[n % len(tokens)])),
        ),
        ("insert", await at_full_load(lambda n: load.post("/api/v1/patients", body, tokens[n % len(tokens)]))),
    ]


PASSWORD = "securepassword"


def email(group: str, n: int) -> str:
    """The n-th practice's address."""
    return f"{group}-{n}@example.com"


def sign_up_of(group: str) -> load.Request:
    """Requests that sign up one practice after the other."""

    def request(n: int) -> bytes:
        body = {"name": f"Practice {n}", "email": email(group, n), "password": PASSWORD}
        return load.post("/api/v1/practices/signup", json.dumps(body).encode())

    return request


async def log_in(port: int, address: str) -> str:
    """A token."""
    body = json.dumps({"email": address, "password": PASSWORD}).encode()
    answer = await call(port, load.post("/api/v1/practices/login", body))
    return str(json.loads(answer)["token"])


async def call(port: int, request: bytes) -> bytes:
    """One request on a connection of its own; the answer's body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2]


def report(ready_s: float, memory: dict[str, float], rows: list[tuple[str, load.Load]]) -> str:
    """The page."""
    lines = [
        "# Measured",
        "",
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()};",
        f"the load runs on the same machine. {CLIENTS} clients in a closed loop for {ROUND_S:.0f} s unless the row",
        "says otherwise. Written by `make bench`.",
        "",
        f"First start with empty data until `/readyz` is 200: {ready_s:.1f} s.",
        "",
        "| | per second | p50 ms | p99 ms | no 2xx |",
        "|---|---|---|---|---|",
        *(shown(name, row) for name, row in rows),
        "",
        "| memory at rest (PSS) | MB |",
        "|---|---|",
        *(f"| {name} | {size:.0f} |" for name, size in memory.items()),
        f"| **all** | **{sum(memory.values()):.0f}** |",
        "",
    ]
    return "\n".join(lines)


def shown(name: str, row: load.Load) -> str:
    """A row of the table."""
    p50_ms, p99_ms = row.percentile_ms(50), row.percentile_ms(99)
    return f"| {name} | {row.per_second:,.0f} | {p50_ms:.1f} | {p99_ms:.1f} | {row.failed} |"


if __name__ == "__main__":
    main()
