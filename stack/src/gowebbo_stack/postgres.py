"""One embedded PostgreSQL server: its data folder, its settings, its command line. Who keeps it running is elsewhere.

The wheel's programs, our own initdb: SCRAM for every connection, no trust, no PATH.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from gowebbo_stack.binaries import postgres_install
from gowebbo_stack.launching import Identity, Launch, nobody_ids, ordinary_identity, run

SUPERUSER = "postgres"
_INITDB_TIMEOUT_S = 120
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
_PROTOCOL_3 = 3 << 16
_SOCKET_FOLDER = re.compile(r"/[A-Za-z0-9_./-]{1,85}")  # as tenant-service reads it; with the file's name 107 bytes
_NO_SUCH_PID = 2**22 + 1  # above Linux's highest

# For many small databases on one machine. Nothing here trades durability away.
_SETTINGS = {
    "password_encryption": "scram-sha-256",
    "recovery_init_sync_method": "syncfs",  # thousands of files: 5.7 s with fsync, 0.34 s with syncfs
    "shared_buffers": "128MB",
    "max_parallel_workers_per_gather": "0",
    "max_worker_processes": "2",
    "max_wal_senders": "0",
    # A shard has few tables. The lock table is made for all connections at once: 20 MB less than with 64.
    "max_locks_per_transaction": "16",
    "max_pred_locks_per_transaction": "10",
    "jit": "off",
    # A new database is 300 files, and a checkpoint has to fsync each. So checkpoints are small, and pages go to the
    # disk meanwhile: less is left to do when the server stops, and less to do again after a crash.
    "max_wal_size": "256MB",
    "backend_flush_after": "256kB",
    "checkpoint_warning": "0",
    "autovacuum_naptime": "5min",  # the interval is divided among all databases
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %d ",
    # No statement, no value of a row and no parameter may reach a log file.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_checkpoints": "off",
    "log_autovacuum_min_duration": "-1",
}
_WITH_IO_METHOD = 18  # PostgreSQL's version


class PostgresError(RuntimeError):
    """The embedded PostgreSQL can't be made or started; the message says what to do."""


@dataclass(frozen=True)
class Postgres:
    """A server's folder and address. `password` is the superuser's."""

    data: Path
    port: int
    password: str
    max_connections: int = 1000
    durable: bool = True  # False: for tests only
    identity: Identity = field(default_factory=ordinary_identity)
    programs: Path | None = None  # the folder of another PostgreSQL than the wheel's
    settings: Mapping[str, str] = field(default_factory=dict)  # besides the embedded stack's own

    @property
    def host(self) -> str:
        """Where services connect: the folder of the server's socket, or 127.0.0.1 where its path can't be used.

        A socket costs less than TCP over the loopback interface: 7 % more lists of 20 a second through the whole chain.
        """
        folder = os.fspath(self.data)
        return folder if _SOCKET_FOLDER.fullmatch(folder) else "127.0.0.1"

    def dsn(self, database: str = "postgres") -> str:
        """Return the superuser's URL of a database."""
        return f"postgresql://{SUPERUSER}:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{quote(database)}"

    def initialise(self) -> None:
        """Make the data folder unless it is there. Blocks for about a second."""
        if (self.data / "PG_VERSION").is_file():
            self._take_over()
            return
        # Beside its place, renamed when it is whole: an interrupted initdb must not look complete.
        unfinished = self.data.with_name(f"{self.data.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True, mode=0o700)
        password_file = self.data.with_name(f"{self.data.name}.password")
        password_file.touch(mode=0o600)
        try:
            password_file.write_text(self.password, encoding="ascii")
            for path in (unfinished, password_file):
                os.chown(path, self._owner(), -1)
            self._initdb(unfinished, password_file)
        finally:
            password_file.unlink(missing_ok=True)
        unfinished.rename(self.data)

    def _initdb(self, folder: Path, password_file: Path) -> None:
        log = self.data.with_name(f"{self.data.name}.initdb.log")
        command = [
            self._program("initdb"),
            f"--pgdata={folder}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth-host=scram-sha-256",
            "--auth-local=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=libc",
            "--locale=C.UTF-8",
            "--no-instructions",
            *([] if self.durable else ["--no-sync"]),
        ]
        try:
            code = run(
                Launch(command=command, environment=_ENVIRONMENT, log=log, identity=self.identity),
                timeout_s=_INITDB_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise PostgresError(f"initdb did not finish within {_INITDB_TIMEOUT_S} s; see {log}") from error
        except (OSError, subprocess.SubprocessError) as error:
            raise PostgresError(f"initdb can't be started: {error}") from error
        if code != 0:
            raise PostgresError(f"initdb failed (exit {code}):\n{log.read_text(errors='replace')[-2000:]}")
        log.unlink()

    def launch(self, log: Path) -> Launch:
        """Return how the postmaster is started. It shuts down fast when the supervisor is gone."""
        has_io_method = int((self.data / "PG_VERSION").read_text(encoding="ascii")) >= _WITH_IO_METHOD
        settings = {
            **_SETTINGS,
            **({"io_method": "sync"} if has_io_method else {}),  # three I/O processes fewer; the databases are small
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            # Nobody but the owner can enter the data folder.
            "unix_socket_directories": self.host if self.host.startswith("/") else "",
            "max_connections": str(self.max_connections),
            "fsync": "on" if self.durable else "off",
            "synchronous_commit": "on" if self.durable else "off",
            "full_page_writes": "on" if self.durable else "off",
            **self.settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return Launch(
            command=[self._program("postgres"), "-D", os.fspath(self.data), *options],
            environment=_ENVIRONMENT,
            log=log,
            identity=self.identity,
            death_signal=signal.SIGINT,
        )

    def accepts_connections(self) -> bool:
        """Tell whether clients may log in now, as pg_isready does: by the answer to a start-up message."""
        parameters = b"user\0postgres\0database\0postgres\0\0"
        message = struct.pack("!ii", len(parameters) + 8, _PROTOCOL_3) + parameters
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(message)
                return connection.recv(1024).startswith(
                    b"R"
                )  # it asks for the password; while it starts it sends an error
        except OSError:
            return False

    def before_start(self) -> None:
        """Free a data folder of what a killed postmaster left: its pid, and processes that are too busy to notice.

        PostgreSQL takes any live process of that pid for the old postmaster, and does not start while old processes
        hold the shared memory: the one that writes a checkpoint may for minutes. The pid is replaced, the file
        stays: the rest of it lets PostgreSQL see whether they still hold it.
        """
        lock = self.data / "postmaster.pid"
        try:
            first, *rest = lock.read_text(encoding="utf-8").splitlines(keepends=True)
            command = _command(int(first))
        except FileNotFoundError:  # it stopped by itself, or this is a copy of its folder
            self._remove_socket()
            return
        except (OSError, ValueError):
            return
        if os.fsencode(self.data) in command:
            return  # it lives, and the new one will say so
        self._remove_socket()
        if command:
            lock.write_text("".join([f"{_NO_SUCH_PID}\n", *rest]), encoding="utf-8")
        self._kill_orphans()

    def _remove_socket(self) -> None:
        """With a file that names a pid as well, which PostgreSQL believes."""
        for left in self.data.glob(".s.PGSQL.*"):
            left.unlink()

    def _kill_orphans(self) -> None:
        for folder in Path("/proc").glob("[0-9]*"):
            pid = int(folder.name)
            with contextlib.suppress(OSError):  # it ended meanwhile, or is nobody's whom we may ask
                if _command(pid).startswith(b"postgres: ") and (folder / "cwd").samefile(self.data):
                    os.kill(pid, signal.SIGKILL)

    def _program(self, name: str) -> str:
        return os.fspath((self.programs or postgres_install() / "bin") / name)

    def _owner(self) -> int:
        return nobody_ids()[0] if self.identity is Identity.NOBODY else os.geteuid()

    def _take_over(self) -> None:
        """Change the files' owner when root starts PostgreSQL in another way than last time."""
        owner = self._owner()
        if os.geteuid() != 0 or self.data.stat().st_uid not in {0, nobody_ids()[0]} - {owner}:
            return
        for folder, _, files in os.walk(self.data, topdown=False):  # the top last: it tells that all are done
            for path in (*(os.path.join(folder, file) for file in files), folder):  # noqa: PTH118 -- 60,000 files
                os.chown(path, owner, -1, follow_symlinks=False)


def _command(pid: int) -> bytes:
    """Return a process's command line; nothing when there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
