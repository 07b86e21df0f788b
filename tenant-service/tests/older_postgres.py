"""A PostgreSQL of another version than the wheel's, where this machine has one on its PATH."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tenant_stand import wait_for

from gowebbo_stack.launching import Launch, ordinary_identity, run, start
from gowebbo_stack.ports import free_port
from gowebbo_stack.postgres import SUPERUSER, Postgres
from gowebbo_stack.testing import PostgresServer

OLDEST = "15"


@contextlib.contextmanager
def oldest_postgres(folder: Path) -> Iterator[PostgresServer]:
    """Runs a fresh PostgreSQL 15; the test is skipped, and says so, on a machine without one."""
    programs = [shutil.which(name) for name in ("postgres", "initdb")]
    if None in programs or not _version(str(programs[0])).startswith(f"postgres (PostgreSQL) {OLDEST}."):
        pytest.skip(f"NOT TESTED on PostgreSQL {OLDEST}: there is none on PATH")
    postgres, initdb = map(str, programs)
    identity, password, port = ordinary_identity(), secrets.token_hex(16), free_port()
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    known = Postgres(data=folder / "data", port=port, password=password, identity=identity)
    (folder / "password").write_text(password)
    (folder / "data").mkdir(mode=0o700)
    for path in (folder / "password", folder / "data"):
        os.chown(path, known._owner(), -1)
    words = [f"--pgdata={folder / 'data'}", f"--username={SUPERUSER}", f"--pwfile={folder / 'password'}", "--no-sync"]
    making = Launch([initdb, "--auth=scram-sha-256", *words], environment, folder / "initdb.log", identity=identity)
    assert run(making, timeout_s=120) == 0, (folder / "initdb.log").read_text()
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    process = start(
        Launch([postgres, "-D", str(folder / "data"), *options], environment, folder / "log", identity=identity)
    )
    try:
        wait_for(known.accepts_connections)
        yield PostgresServer("127.0.0.1", port, SUPERUSER, password, process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def _version(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
