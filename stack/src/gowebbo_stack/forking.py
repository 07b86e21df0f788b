"""Starting Python programs by fork from a process that has imported their libraries already (forkserver.py says why).

They become children of this process, with everything that launching.py promises. If the fork server can't be had or
is gone, a program is started in the ordinary way: slower and larger, but the same.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from gowebbo_stack import launching
from gowebbo_stack.launching import Identity, Launch, Process

_IMPORT_TIMEOUT_S = 30.0
_FORK_TIMEOUT_S = 5.0
_BURIAL_TIMEOUT_S = 5.0


class ForkedProcess:
    """A child that another process has made. What supervision needs of a `Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or the negative number of the signal that ended it; None while it runs."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkServer:
    """The supervisor's side of the fork server."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process's id; None when there is none."""
        return self._process.pid if self._process else None

    def open(self, environment: Mapping[str, str], log: Path) -> None:
        """Begin to import. The environment is what all programs have in common: no secret may be in it."""
        if sys.platform != "linux":  # elsewhere nobody can become the parent of a grandchild
            return
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "gowebbo_stack.forkserver", str(theirs.fileno())]
            self._process = launching.start(Launch(command, environment, log=log, descriptors=[theirs.fileno()]))

    async def imported(self) -> None:
        """Wait until it can fork."""
        if self._control is None:
            return
        self._control.setblocking(False)
        answer = b""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_IMPORT_TIMEOUT_S):
                answer = await asyncio.get_running_loop().sock_recv(self._control, 16)
        if not answer:
            self.close()

    def start(self, launch: Launch) -> Process:
        """Start `python -m module …` by a fork, or in the ordinary way. Blocks for some milliseconds."""
        if self._control is not None:
            try:
                return self._fork(launch)
            except (OSError, ValueError):
                self.close()
        return launching.start(launch)

    def close(self) -> None:
        """End the fork server; what it has started goes on."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _fork(self, launch: Launch) -> ForkedProcess:
        assert self._control is not None
        ours, theirs = socket.socketpair()
        with ours, launching.adopting_orphans():
            try:
                with theirs:
                    socket.send_fds(self._control, [b"f"], [theirs.fileno()])
                ours.settimeout(_FORK_TIMEOUT_S)
                with launching.open_log(launch) as log:
                    socket.send_fds(ours, [b"d"], [log.fileno(), *launch.descriptors])
                ours.sendall(_request(launch))
                pid = int(ours.recv(32))
            except (OSError, ValueError):
                self.close()
                _bury(ours)
                raise
            with contextlib.suppress(OSError):  # it has ended already, as its return code will tell
                ours.sendall(b"+")
            return ForkedProcess(pid)


def _bury(channel: socket.socket) -> None:
    """Refuse a process that comes too late, if one comes, and wait for its end: it would stay a zombie."""
    with contextlib.suppress(OSError, ValueError):
        channel.shutdown(socket.SHUT_WR)
        channel.settimeout(_BURIAL_TIMEOUT_S)
        os.waitpid(int(channel.recv(32)), 0)


def _request(launch: Launch) -> bytes:
    assert launch.identity is Identity.CURRENT
    _python, _m, *words = launch.command
    request = {
        "words": words,
        "environment": dict(launch.environment),
        "directory": os.fspath(launch.working_directory or Path.cwd()),
        "descriptors": list(launch.descriptors),
        "death_signal": launch.death_signal,
    }
    return json.dumps(request).encode() + b"\n"
