"""Starts an application on uvicorn: on an inherited socket when the stack hands one over, else on host and port."""

import socket
from contextlib import suppress

import uvicorn
import uvloop
from starlette.types import ASGIApp

from shared.whole_answers import WholeAnswers

BACKLOG = 2048
GRACE_S = 8
"""Running requests may end within this time after SIGTERM; the embedded stack allows 15 s in all."""
KEEP_ALIVE_S = 75
"""Longer than the gateway keeps an idle connection, so that a service rarely closes one that is about to be used."""


def make_server(app: ASGIApp, *, host: str, port: int, keep_alive_s: int = KEEP_ALIVE_S) -> uvicorn.Server:
    """A uvicorn server with the house's choices: httptools, no access log, no `Server` header, no trusted proxies."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http=WholeAnswers,
            ws="none",
            loop="uvloop",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=keep_alive_s,
            timeout_graceful_shutdown=GRACE_S,
        )
    )


def inherited_sockets(fd: int | None) -> list[socket.socket] | None:
    """The listening socket behind a descriptor, as uvicorn takes it; None without one."""
    return None if fd is None else [socket.socket(fileno=fd)]


def serve(app: ASGIApp, *, host: str, port: int, fd: int | None) -> None:
    """Runs until SIGTERM or SIGINT."""
    with suppress(KeyboardInterrupt):  # Ctrl-C is a way to end it, not a fault
        uvloop.run(make_server(app, host=host, port=port).serve(sockets=inherited_sockets(fd)))
