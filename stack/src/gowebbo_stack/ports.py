"""Free ports and the listening sockets that the supervisor binds itself and hands to its children."""

import os
import random
import socket
from pathlib import Path

BACKLOG = 1024
_ATTEMPTS = 200


class PortTakenError(RuntimeError):
    """Another program listens where this one should."""


def _ephemeral_range_start() -> int:
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
        return int(text.split()[0])
    except (OSError, ValueError, IndexError):
        return 32768


def free_port(host: str = "127.0.0.1", *, preferred: int | None = None) -> int:
    """Return a port that nobody listens on, the preferred one if it is free.

    Below the range for outgoing connections: a server that restarts must find its port as it left it, and any
    client's connection could have taken a port of that range meanwhile.
    """
    top = _ephemeral_range_start()
    floor = max(1024, top - 16000)
    candidates = [preferred] if preferred else []
    candidates += random.sample(range(floor, top), min(_ATTEMPTS, top - floor)) if top > floor else [0]
    for port in candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise PortTakenError(f"No free port found on {host}.")


def listen_tcp(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port or free_port(host)))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise PortTakenError(
            f"Cannot listen on {host}:{port}: {error.strerror}. Choose another port: PORT=5050 gowebbo up"
        ) from error
    return listener


def listen_unix(path: Path) -> socket.socket:
    """Return a listening socket at a path that only this user can reach."""
    listener = socket.socket(socket.AF_UNIX)
    path.unlink(missing_ok=True)
    listener.bind(os.fspath(path))
    path.chmod(0o600)
    listener.listen(BACKLOG)
    return listener
