"""Starting one process so that it can neither outlive the supervisor nor inherit what it was not given.

Only the start is here; who watches, restarts and stops a process is in supervision.py.
"""

import ctypes
import enum
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
_NAMESPACE_ID = 1000  # any id but 0 would do
_LIBC = ctypes.CDLL(None, use_errno=True)


class Identity(enum.Enum):
    """As whom a program runs. PostgreSQL refuses to run as root."""

    CURRENT = "current"
    NAMESPACE = "namespace"  # root outside, id 1000 inside a user namespace: no file changes its owner
    NOBODY = "nobody"


@dataclass(frozen=True)
class Launch:
    """One program with everything it is given. Signals and descriptors not named here don't reach it."""

    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path | None = None
    working_directory: Path | None = None
    descriptors: Sequence[int] = ()
    identity: Identity = Identity.CURRENT
    death_signal: signal.Signals = signal.SIGKILL  # what the kernel sends when the supervisor is gone


def _enter_user_namespace(uid: int, gid: int) -> None:
    if _LIBC.unshare(_CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{_NAMESPACE_ID} {uid} 1"),
        ("gid_map", f"{_NAMESPACE_ID} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123 -- between fork and exec
            file.write(line)


def _before_exec(launch: Launch) -> Callable[[], None]:
    """Return what the child does between fork and exec."""
    parent, uid, gid = os.getpid(), os.getuid(), os.getgid()

    def prepare() -> None:
        if launch.identity is Identity.NAMESPACE:
            _enter_user_namespace(uid, gid)
        # After the change of identity: changed credentials clear the signal. It is tied to the *thread* that
        # forked, so processes are started in the main thread only.
        if sys.platform == "linux":
            _LIBC.prctl(_PR_SET_PDEATHSIG, launch.death_signal, 0, 0, 0)
            if os.getppid() != parent:  # the supervisor died before the signal was armed
                os._exit(1)

    return prepare


def start(launch: Launch) -> "subprocess.Popen[bytes]":
    """Start a program in a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone."""
    nobody = launch.identity is Identity.NOBODY
    log: IO[bytes] | int = launch.log.open("ab") if launch.log else subprocess.DEVNULL
    try:
        return subprocess.Popen(
            list(launch.command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(launch.environment),
            cwd=launch.working_directory,
            pass_fds=tuple(launch.descriptors),
            start_new_session=True,
            preexec_fn=_before_exec(launch),  # noqa: PLW1509 -- only async-signal-safe work, no threads involved
            user="nobody" if nobody else None,
            group=_nobodys_group() if nobody else None,
            extra_groups=[] if nobody else None,
        )
    finally:
        if not isinstance(log, int):
            log.close()


def run(launch: Launch, *, timeout_s: float) -> int:
    """Run a program to its end and return its exit code; kill it when the time is over."""
    process = start(launch)
    try:
        return process.wait(timeout_s)
    except BaseException:
        process.kill()
        process.wait()
        raise


def _nobodys_group() -> int:
    """Return nobody's own group: it is `nogroup`, `nobody` or another, by distribution."""
    import pwd  # noqa: PLC0415 -- absent on platforms that have no users

    return pwd.getpwnam("nobody").pw_gid


def _namespace_works() -> bool:
    probe = Launch(command=["/bin/sh", "-c", ":"], environment={}, identity=Identity.NAMESPACE)
    try:
        return run(probe, timeout_s=10) == 0
    except (OSError, subprocess.SubprocessError):
        return False  # containers commonly forbid user namespaces


def ordinary_identity() -> Identity:
    """Return as whom a program runs that refuses to be root."""
    if os.geteuid() != 0:
        return Identity.CURRENT
    return Identity.NAMESPACE if _namespace_works() else Identity.NOBODY
