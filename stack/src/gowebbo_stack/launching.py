"""Starting one process so that it can neither outlive the supervisor nor inherit what it was not given.

Only the start is here; who watches, restarts and stops a process is in supervision.py.
"""

import contextlib
import ctypes
import enum
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_SECUREBITS = 28
_PR_SET_CHILD_SUBREAPER = 36
_SECBIT_NO_SETUID_FIXUP = 4
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE = 1
_CLONE_NEWUSER = 0x10000000
_LIBC = ctypes.CDLL(None, use_errno=True)


class IdentityError(RuntimeError):
    """Root has no way to start a program that refuses to be root."""


class Identity(enum.Enum):
    """As whom a program runs. PostgreSQL refuses to run as root, and wants its user's name to be known."""

    CURRENT = "current"
    NAMESPACE = "namespace"  # root outside, nobody inside a user namespace: no file changes its owner
    NOBODY = "nobody"  # its files are nobody's; it may pass through folders of root's


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


class Process(Protocol):
    """A child of this process, as `subprocess.Popen` shows it."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def send_signal(self, number: signal.Signals, /) -> None: ...


def nobody_ids() -> tuple[int, int]:
    """Return nobody's user and group ids: they differ by distribution. Raises KeyError where there is no nobody."""
    import pwd  # noqa: PLC0415 -- absent on platforms that have no users

    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _enter_user_namespace(outside: tuple[int, int], inside: tuple[int, int]) -> None:
    _check(_LIBC.unshare(_CLONE_NEWUSER))
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside[0]} {outside[0]} 1"),
        ("gid_map", f"{inside[1]} {outside[1]} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123 -- between fork and exec
            file.write(line)


def _become_nobody(uid: int, gid: int) -> None:
    """Give up all of root's rights but that to pass by files' permissions: the way to the data may be root's alone."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    # The change of user takes no capability then, and access(2), which initdb asks, counts those that are kept.
    _check(_LIBC.prctl(_PR_SET_SECUREBITS, *map(ctypes.c_ulong, (_SECBIT_NO_SETUID_FIXUP, 0, 0, 0))))
    os.setresuid(uid, uid, uid)
    kept = 1 << _CAP_DAC_OVERRIDE
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_LIBC.capset(header, struct.pack("=6I", kept, kept, kept, 0, 0, 0)))  # effective, permitted, inheritable
    # Ambient: without it exec would take the right from a program that isn't root's.
    _check(_LIBC.prctl(_PR_CAP_AMBIENT, *map(ctypes.c_ulong, (_PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0))))


def _before_exec(launch: Launch) -> Callable[[], None]:
    """Return what the child does between fork and exec."""
    parent, own_ids = os.getpid(), (os.getuid(), os.getgid())
    nobody = own_ids if launch.identity is Identity.CURRENT else nobody_ids()

    def prepare() -> None:
        if launch.identity is Identity.NAMESPACE:
            _enter_user_namespace(own_ids, nobody)
        elif launch.identity is Identity.NOBODY:
            _become_nobody(*nobody)
        # After the change of identity: changed credentials clear the signal. It is tied to the *thread* that
        # forked, so processes are started in the main thread only.
        end_with_parent(parent, launch.death_signal)

    return prepare


def end_with_parent(parent: int, death_signal: signal.Signals) -> None:
    """Let the kernel send this process a signal when its parent is gone, on Linux."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:  # it died before the signal was armed
            os._exit(1)


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """Become the parent of descendants whose own parent ends meanwhile. Not for longer: who adopts must bury."""
    _check(_LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    try:
        yield
    finally:
        _check(_LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0))


def call_this_process(name: str, command: Sequence[str]) -> None:
    """Set the name and the command line that `ps` and `top` show, on Linux.

    Of the name the first 15 bytes count, of the command line as many as the process was started with.
    """
    _check(_LIBC.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0))
    begin, end = map(int, Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[45:47])
    shown = b"".join(os.fsencode(word) + b"\0" for word in command)[: end - begin]
    ctypes.memset(begin, 0, end - begin)
    ctypes.memmove(begin, shown, len(shown))


def open_log(launch: Launch) -> IO[bytes]:
    """Open what a program writes its output to."""
    return (launch.log or Path(os.devnull)).open("ab")


def start(launch: Launch) -> "subprocess.Popen[bytes]":
    """Start a program in a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone."""
    with open_log(launch) as log:
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
        )


def run(launch: Launch, *, timeout_s: float) -> int:
    """Run a program to its end and return its exit code; kill it when the time is over."""
    process = start(launch)
    try:
        return process.wait(timeout_s)
    except BaseException:
        process.kill()
        process.wait()
        raise


def works(identity: Identity) -> bool:
    """Tell whether a program can be started so here: containers commonly forbid user namespaces."""
    probe = Launch(command=["/bin/sh", "-c", ":"], environment={}, identity=identity)
    try:
        return run(probe, timeout_s=10) == 0
    except (OSError, KeyError, subprocess.SubprocessError):
        return False


def ordinary_identity() -> Identity:
    """Return as whom a program runs that refuses to be root. Raises IdentityError when there is no way."""
    if os.geteuid() != 0:
        return Identity.CURRENT
    for identity in (Identity.NAMESPACE, Identity.NOBODY):
        if works(identity):
            return identity
    raise IdentityError(
        "PostgreSQL refuses to run as root, and root can here neither make a user namespace nor become the user "
        "nobody with CAP_DAC_OVERRIDE. Run this as an ordinary user."
    )
