"""Runs plain/: the same calls in the ordinary way, on the same PostgreSQL and with the same tokens."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from practices import Practice
from stand import Stand, free_port, wait_for_listener

PLAIN = Path(__file__).with_name("plain")


@contextmanager
def running_peer(stand: Stand, practices: Sequence[Practice]) -> Iterator[int]:
    """The peer's port."""
    with tempfile.TemporaryDirectory(prefix="gowebbo-plain-") as folder:
        jwks, directory, path = (Path(folder, name) for name in ("jwks", "directory", "s"))
        port = free_port()
        with urllib.request.urlopen(f"http://127.0.0.1:{stand.port}/.well-known/jwks.json") as answer:
            jwks.write_bytes(answer.read())
        directory.write_text(json.dumps({practice.id: practice.database for practice in practices}))
        environment = {**os.environ, "PLAIN_JWKS": str(jwks), "PLAIN_DIRECTORY": str(directory)}
        environment |= {"PLAIN_SOCKET": str(path), "PLAIN_DSN": stand.dsn}
        uvicorn = [sys.executable, "-m", "uvicorn", "--no-access-log", "--log-level", "critical"]
        services: list[subprocess.Popen[bytes]] = []
        try:
            services.append(subprocess.Popen([*uvicorn, "patients:app", "--uds", path], env=environment, cwd=PLAIN))
            wait_for_listener(lambda: _unix_connection(path))
            services.append(
                subprocess.Popen([*uvicorn, "gateway:app", "--port", str(port)], env=environment, cwd=PLAIN)
            )
            wait_for_listener(lambda: socket.create_connection(("127.0.0.1", port)))
            yield port
        finally:
            for service in services:
                service.terminate()
            for service in services:
                service.wait(15)


def _unix_connection(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection
