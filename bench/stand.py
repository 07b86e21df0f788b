"""What is measured: an embedded stack of its own in a temporary folder, and what its processes take of the machine."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2

GOWEBBO = Path(sys.executable).with_name("gowebbo")
REST_S = 5.0
"""After the start, before memory is measured: what the start-up needed is given back by then."""
IDLE_CORES, IDLE_LIMIT_S = 0.15, 15.0
"""A stack at rest uses less; the wait for it ends anyway, since a vacuum may take long."""
STOP_S = 60.0
"""Four times what is promised: a stack that is late is a finding, not the end of the measurement."""
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Stand:
    """A running stack."""

    port: int
    home: Path
    pid: int
    status: dict[str, Any]
    ready_s: float

    @property
    def dsn(self) -> str:
        """PostgreSQL's superuser."""
        return str(self.status["postgres"]["dsn"])

    @cached_property
    def postgres_host(self) -> str:
        """Where the services reach PostgreSQL: the folder of its socket, or this machine."""
        with self.sql("postgres") as cursor:
            cursor.execute("SHOW unix_socket_directories")
            return str(cursor.fetchone()[0]) or "127.0.0.1"

    @contextmanager
    def sql(self, database: str) -> Iterator[Any]:
        """A cursor as PostgreSQL's superuser; each statement is a transaction."""
        connection = psycopg2.connect(urlunsplit(urlsplit(self.dsn)._replace(path=f"/{database}")))
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def connections(self) -> int:
        """Connections to PostgreSQL that the services hold."""
        with self.sql("postgres") as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            return int(cursor.fetchone()[0])

    def processes(self) -> dict[str, list[int]]:
        """The process ids of each part with their descendants; the supervisor's are those that are no other part's."""
        parts = {name: tree(entry.get("pids") or [entry["pid"]]) for name, entry in self.status.items()}
        others = {pid for pids in parts.values() for pid in pids}
        return {"supervisor": [pid for pid in tree([self.pid]) if pid not in others], **parts}

    def memory_mb(self) -> dict[str, float]:
        """Each part's share of memory (PSS): what processes share is divided among them."""
        return {name: sum(map(_pss_mb, pids)) for name, pids in self.processes().items()}

    def wait_idle(self) -> None:
        """Until nothing of the last load is left to do: a log-in whose client has hung up is still hashed."""
        deadline = time.monotonic() + IDLE_LIMIT_S
        while time.monotonic() < deadline:
            before_s, began = sum(self.cpu_s().values()), time.monotonic()
            time.sleep(0.3)
            if sum(self.cpu_s().values()) - before_s < IDLE_CORES * (time.monotonic() - began):
                return

    def busy_at_rest(self) -> float:
        """Cores that the stack uses while nobody asks it for anything."""
        self.wait_idle()
        before_s, began = sum(self.cpu_s().values()), time.monotonic()
        time.sleep(REST_S)
        return (sum(self.cpu_s().values()) - before_s) / (time.monotonic() - began)

    def cpu_s(self) -> dict[str, float]:
        """The processors' time that each part has used so far, with what its ended descendants had used."""
        return {name: sum(map(_cpu_s, pids)) for name, pids in self.processes().items()}


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A folder for a stack's data."""
    with tempfile.TemporaryDirectory(prefix="gowebbo-bench-") as folder:
        yield Path(folder)


@contextmanager
def running_stack(home: Path, **settings: object) -> Iterator[Stand]:
    """A stack with these settings and the data in `home`, until the context ends."""
    port = free_port()
    environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
    environment |= {"GOWEBBO_HOME": str(home / "data"), "PORT": str(port)}
    started = time.perf_counter()
    with (home / "up.log").open("w") as log:
        up = subprocess.Popen([GOWEBBO, "up"], env=environment, stdout=log, stderr=log, cwd=home)
        try:
            _wait_ready(up, port, log=home / "up.log")
            ready_s = time.perf_counter() - started
            status = subprocess.check_output([GOWEBBO, "status", "--json"], env=environment, cwd=home)
            time.sleep(REST_S)
            yield Stand(port, home, up.pid, json.loads(status), ready_s)
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(timeout=STOP_S)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for_listener(connect: Callable[[], socket.socket], *, timeout_s: float = 30) -> None:
    """Until somebody takes this connection. Raises the last OSError when that takes longer."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connect().close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _wait_ready(up: subprocess.Popen[bytes], port: int, *, log: Path, timeout_s: float = 1800) -> None:
    """Until /readyz is 200. Raises RuntimeError when the stack ends or takes longer."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and up.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise RuntimeError(f"the stack did not become ready:\n{log.read_text()}")


def tree(pids: Iterable[int]) -> list[int]:
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


def _cpu_s(pid: int) -> float:
    """User and system time, its own and that of children it has waited for; 0 for a process that has ended.

    Its own by its clock: `stat` counts whole ticks, and a thousand backends that use less than one each make a sum.
    """
    clock = ctypes.c_int()
    if _LIBC.clock_getcpuclockid(pid, ctypes.byref(clock)) != 0:
        return 0.0
    try:
        of_children = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[13:15]
        return time.clock_gettime(clock.value) + sum(map(int, of_children)) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0.0


def _pss_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)
