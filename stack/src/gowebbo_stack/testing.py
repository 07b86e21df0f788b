"""Real servers for tests: PostgreSQL and Valkey in a folder of the test session. No durability, no restart."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gowebbo_stack.launching import start
from gowebbo_stack.ports import free_port
from gowebbo_stack.postgres import SUPERUSER, Postgres
from gowebbo_stack.valkey import Valkey

_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 20
_POLL_S = 0.02


@dataclass(frozen=True)
class PostgresServer:
    """A running PostgreSQL; `data` is its folder."""

    host: str
    port: int
    superuser: str
    password: str
    pid: int
    data: Path

    def dsn(self, dbname: str = "postgres") -> str:
        """Return the superuser's URL (`postgresql://…`) of a database."""
        return f"postgresql://{self.superuser}:{self.password}@{self.host}:{self.port}/{dbname}"


@dataclass(frozen=True)
class SecondPostgres:
    """How to run PostgreSQL 15 with TLS: its folder of programs, its settings, and who signed its certificate."""

    programs: Path
    settings: dict[str, str]
    authority: Path


@dataclass(frozen=True)
class RedisServer:
    """A running server that speaks the Redis protocol."""

    host: str
    port: int
    password: str
    url: str
    pid: int


def find_postgres(major: int) -> Path | None:
    """Return the folder of an installed PostgreSQL's programs: of the one on PATH, else of Debian's package."""
    on_path = shutil.which("postgres")
    folders = [Path(on_path).resolve().parent] if on_path else []
    for folder in [*folders, Path(f"/usr/lib/postgresql/{major}/bin")]:
        with contextlib.suppress(OSError):
            told = subprocess.run([os.fspath(folder / "postgres"), "--version"], capture_output=True, check=False)
            if f"(PostgreSQL) {major}.".encode() in told.stdout and (folder / "initdb").exists():
                return folder
    return None


@contextlib.contextmanager
def running_postgres(
    folder: Path,
    *,
    max_connections: int = 200,
    port: int | None = None,
    password: str | None = None,
    programs: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[PostgresServer]:
    """Run a PostgreSQL in `folder` as long as the context lasts: a fresh one, or the one that is there already.

    `programs` is the folder of another PostgreSQL than the wheel's, `settings` are PostgreSQL's own.
    """
    server = Postgres(
        data=folder / "postgres",
        port=port or free_port(),
        password=password or secrets.token_hex(16),
        max_connections=max_connections,
        durable=False,
        programs=programs,
        settings=settings or {},
    )
    server.initialise()
    process = start(server.launch(folder / "postgres.log"))
    with _stopped_at_the_end(process, signal.SIGINT):
        _wait_until(server.accepts_connections, process, folder / "postgres.log")
        yield PostgresServer("127.0.0.1", server.port, SUPERUSER, server.password, process.pid, server.data)


@contextlib.contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """Run a fresh Valkey in `folder` as long as the context lasts."""
    server = Valkey(folder / "redis", free_port(), secrets.token_hex(16), durable=False)
    server.initialise()
    process = start(server.launch(folder / "redis.log"))
    with _stopped_at_the_end(process, signal.SIGTERM):
        _wait_until(server.accepts_connections, process, folder / "redis.log")
        yield RedisServer("127.0.0.1", server.port, server.password, server.url, process.pid)


@contextlib.contextmanager
def _stopped_at_the_end(process: "subprocess.Popen[bytes]", how: signal.Signals) -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(how)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until(ready: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"The server did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(_POLL_S)
