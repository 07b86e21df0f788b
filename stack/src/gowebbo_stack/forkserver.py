"""`python -m gowebbo_stack.forkserver`: imports what services have in common, once, and becomes a service by forking.

Six Python services that load the same libraries each by itself take 370 MB at rest, and the stack is ready after 7 s of
processor time; forked from one process they take 240 MB, this one included, and 3 s (Python 3.11, two cores: 2.4 s
instead of 4.7 s). Importing the services' own modules here as well would save another 20 MB, not enough to have each
one's code in all of them. Only the embedded stack does this, and only while this process lives: everywhere else each
service is started as a program of its own (forking.py).

It has one thread, no connection and no secret: what a new process is told is read by that process alone. Whatever is
imported here must start no thread and open nothing.
"""

import fcntl
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import time

from gowebbo_stack.launching import call_this_process, end_with_parent

MODULES = (
    "shared.app",
    "shared.client",
    "shared.cursor",
    "shared.envelope",
    "shared.events",
    "shared.models",
    "shared.server",
    "shared.settings",
    "sqlalchemy.dialects.postgresql",
    "alembic.command",
    "anyio._backends._asyncio",
    "bcrypt",
    "celery.app.task",
    "email.headerregistry",
    "email_validator",
    "encodings.idna",
    "httpcore",
    "jwt",
    "kombu.transport.redis",
    "psycopg2.extensions",
    "pydantic.v1",
    "redis",
    "uvicorn.lifespan.on",
)
"""What at least two services use; some of it they import only when they run."""
_ABSENT = ("rich", "pygments")
"""structlog, httpx and Mako load these for terminals if they are there. In the services' images they aren't."""
MAX_DESCRIPTORS = 16


def main() -> None:
    """Import, say so on the socket of the first argument, and fork until the supervisor closes it."""
    gc.disable()  # nothing is freed before the forks: what a collection touches is not shared any more
    control = socket.socket(fileno=int(sys.argv[1]))
    supervisor = os.getppid()
    sys.modules.update(dict.fromkeys(_ABSENT))  # type: ignore[arg-type]  # None is how Python spells "not to be imported"
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()
    control.send(b"ready")
    while channel := _next(control):
        if os.fork() == 0:
            # This one goes at once, and so the supervisor becomes the parent of the next.
            between = os.getpid()
            if os.fork() != 0:
                os._exit(0)
            control.close()
            become(channel, supervisor=supervisor, between=between)
            return
        channel.close()
        os.wait()


def _next(control: socket.socket) -> socket.socket | None:
    """Return the channel of the next request; None when there will be none."""
    _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
    return socket.socket(fileno=descriptors[0]) if descriptors else None


def become(channel: socket.socket, *, supervisor: int, between: int) -> None:
    """Turn this process into the program that the channel asks for, and run it to its end."""
    os.setsid()
    _, received, _, _ = socket.recv_fds(channel, 1, MAX_DESCRIPTORS)
    request = json.loads(channel.makefile("rb").readline())
    while os.getppid() == between:
        time.sleep(0.0005)
    end_with_parent(supervisor, signal.Signals(request["death_signal"]))
    channel.sendall(b"%d\n" % os.getpid())
    if not channel.recv(1):  # the supervisor has given up waiting and started the program itself
        os._exit(1)
    channel.close()
    _take(received, [1, *request["descriptors"]])
    os.dup2(1, 2)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    module, *words = request["words"]
    call_this_process(module, [sys.executable, "-m", module, *words])
    sys.argv[1:] = words
    gc.enable()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _take(received: list[int], wanted: list[int]) -> None:
    """Give the descriptors the numbers by which the program's environment names them."""
    free = max(*received, *wanted) + 1
    moved = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, free) for one in received]
    for one in received:
        os.close(one)
    for one, number in zip(moved, wanted, strict=True):
        os.dup2(one, number)
        os.close(one)


if __name__ == "__main__":
    main()
