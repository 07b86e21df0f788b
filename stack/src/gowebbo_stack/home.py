"""GOWEBBO_HOME: where everything lies, who may use it now, and what is left of an earlier run."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_SOCKET_PATH_LIMIT_BYTES = 107
_LONGEST_SOCKET_NAME = "/patient-service-99.sock"
_LEFTOVERS_TIMEOUT_S = 10.0
_RUN_FOLDER_PREFIX = "gowebbo-"


class HomeInUseError(RuntimeError):
    """Another `gowebbo up` works on this folder."""


class NotAHomeError(RuntimeError):
    """No `up` ever worked on the folder; the message says so."""


@dataclass(frozen=True)
class Home:
    """The folder with all data of one embedded stack."""

    path: Path

    @property
    def secrets(self) -> Path:
        """Generated secrets, mode 0600."""
        return self.path / "secrets.json"

    @property
    def state(self) -> Path:
        """What runs now: written by `up`, read by `status`."""
        return self.path / "state.json"

    @property
    def logs(self) -> Path:
        """One file for each process."""
        return self.path / "logs"

    @property
    def mailbox(self) -> Path:
        """The Maildir of caught mail."""
        return self.path / "mailbox"

    def postgres(self, key: str) -> Path:
        """Return the data folder of a PostgreSQL server."""
        return self.path / ("postgres" if key == "a" else f"postgres-{key}")

    @property
    def redis(self) -> Path:
        """The data folder of the Redis-protocol server."""
        return self.path / "redis"

    @property
    def lock_file(self) -> Path:
        """Held by the running `up`. It stays, and marks the folder as GoWebbo's."""
        return self.path / "gowebbo.lock"

    @property
    def is_ours(self) -> bool:
        """Whether an `up` worked on the folder, so that what bears our names there is ours."""
        return self.lock_file.is_file() or _are_our_secrets(self.secrets)

    def prepare(self) -> None:
        """Make the folder, closed to others unless it was there before: then its owner decided who may enter."""
        if not self.path.exists():
            self.path.mkdir(parents=True, mode=0o700)
        self.lock_file.touch(mode=0o600)
        self.logs.mkdir(exist_ok=True, mode=0o700)

    def remove(self) -> None:
        """Remove all data, and the folder if nothing else is in it.

        Raises NotAHomeError, and HomeInUseError while a stack runs on it.
        """
        if not self.is_ours:
            raise NotAHomeError(f"{self.path} is no folder of GoWebbo's; nothing was removed.")
        with self.lock():
            self.remove_leftovers()
            for entry in self._entries():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a mount point stays, and what holds somebody's other things
            self.path.rmdir()

    def _entries(self) -> Iterator[Path]:
        """All that bears our names. The lock comes last: whoever interrupts a removal can begin it again."""
        yield from self.path.glob("postgres")
        yield from self.path.glob("postgres-[a-z]")
        yield from (self.redis, self.mailbox, self.logs, self.path / "run")
        yield from self.path.glob("*.json.unfinished")
        yield from (self.state, self.secrets, self.lock_file)

    def lock(self) -> IO[bytes]:
        """Take the folder for this process; the kernel frees it when the process ends, however it ends."""
        file = self.lock_file.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise HomeInUseError(
                f"Another stack is running on {self.path}. Stop it first, or choose another folder and port: "
                "GOWEBBO_HOME=.gowebbo-2 PORT=5050 gowebbo up"
            ) from error
        return file

    def running(self) -> dict[str, Any] | None:
        """Return the state that a live `up` has written, or None."""
        state = self.read_state()
        supervisor = state.get("supervisor", {}) if state else {}
        return state if state and is_alive(supervisor.get("pid"), supervisor.get("started")) else None

    def read_state(self) -> dict[str, Any] | None:
        """Return the last state that was written, by whomever."""
        try:
            state = json.loads(self.state.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return state if isinstance(state, dict) else None

    def write_state(self, state: dict[str, Any]) -> None:
        """Replace the state at once: a reader sees the old one or the new one."""
        write_private(self.state, json.dumps(state, indent=1))

    def run_folder(self) -> Path:
        """Return a fresh 0700 folder for sockets, with a path short enough for them.

        And without a comma: the gateway is told a list of them.
        """
        folder = self.path / "run"
        too_long = len(os.fsencode(folder)) + len(_LONGEST_SOCKET_NAME) > _SOCKET_PATH_LIMIT_BYTES
        if too_long or "," in os.fspath(folder):
            return Path(tempfile.mkdtemp(prefix=_RUN_FOLDER_PREFIX, dir="/tmp"))
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def remove_leftovers(self) -> list[str]:
        """End what an earlier `up` that was killed left behind, and return the names of those processes."""
        left = [(str(name), pid, started) for name, pid, started in self._recorded() if is_alive(pid, started)]
        for sends in (_gentle_signal, _crash_signal, lambda _name: signal.SIGKILL):
            for name, pid, _ in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sends(name))
            deadline = time.monotonic() + _LEFTOVERS_TIMEOUT_S
            while any(is_alive(pid, started) for _, pid, started in left) and time.monotonic() < deadline:
                time.sleep(0.02)
        self.remove_run_folder()
        self.state.unlink(missing_ok=True)
        return [name for name, _, _ in left]

    def remove_run_folder(self) -> None:
        """Remove the last run's sockets, wherever they were."""
        recorded = (self.read_state() or {}).get("run_folder")
        for folder in (Path(str(recorded)), self.path / "run"):
            with contextlib.suppress(OSError):
                status = folder.lstat()
                if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and _is_run_folder(folder):
                    shutil.rmtree(folder)

    def _recorded(self) -> Iterator[tuple[str, Any, Any]]:
        """Return the processes of the last run: those of the state file, and postmasters by their own files."""
        for process in (self.read_state() or {}).get("processes", []):
            yield process["name"], process["pid"], process["started"]
        for file in self.path.glob("postgres*/postmaster.pid"):
            with contextlib.suppress(OSError, ValueError):
                pid = int(file.read_text(encoding="utf-8").splitlines()[0])
                if os.fsencode(file.parent) in Path(f"/proc/{pid}/cmdline").read_bytes():
                    yield file.parent.name, pid, started_at(pid)


def _gentle_signal(name: str) -> signal.Signals:
    # SIGINT is PostgreSQL's fast shutdown; on SIGTERM it would wait for its clients.
    return signal.SIGINT if name.startswith("postgres") else signal.SIGTERM


def _crash_signal(name: str) -> signal.Signals:
    # SIGKILL would leave PostgreSQL's own processes behind, and they the next one without its shared memory.
    return signal.SIGQUIT if name.startswith("postgres") else signal.SIGKILL


def _is_run_folder(folder: Path) -> bool:
    return folder.name == "run" or folder.name.startswith(_RUN_FOLDER_PREFIX)


def _are_our_secrets(file: Path) -> bool:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(kept, dict) and "SHARD_SECRET" in kept and "POSTGRES_PASSWORD" in kept


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)
    unfinished.replace(path)


def started_at(pid: int) -> str | None:
    """Return when a process was started, in the system's own words; with the pid it names a process for good."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]  # a zombie has ended
    answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def is_alive(pid: object, started: object) -> bool:
    """Tell whether the process of this pid is the one that was recorded."""
    return isinstance(pid, int) and started is not None and started_at(pid) == started
