"""One embedded stack, driven as an operator drives it: its command, its signals, its status, its files.

No assertion about the product's answers lives here.
"""

import contextlib
import email.policy
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx
import psutil
import psycopg2
import psycopg2.extensions

GOWEBBO = Path(sys.executable).with_name("gowebbo")
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 15
"""Contract: every child has stopped within this time."""
BACK_WITHIN_S = 30
"""A killed process runs again by then."""
POLL_S = 0.1
_KEPT_FROM_CALLER = ("PATH", "HOME", "LANG", "USER", "TMPDIR")

Found = TypeVar("Found")
StackFactory = Callable[..., "EmbeddedStack"]
"""Makes a stack that isn't started yet, of these settings."""


def eventually(look: Callable[[], Found], what: str, *, timeout_s: float, poll_s: float = POLL_S) -> Found:
    """What `look` returns once it is truthy. Fails with the last thing seen when the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}; last seen: {seen!r}"
        time.sleep(poll_s)


def eventually_none(
    look: Callable[[], Collection[Any]], what: str, *, timeout_s: float, poll_s: float = POLL_S
) -> None:
    """Waits until `look` finds nothing any more. Fails with what is still there when the time is over."""
    deadline = time.monotonic() + timeout_s
    while left := look():
        assert time.monotonic() < deadline, f"after {timeout_s} s still {what}: {left!r}"
        time.sleep(poll_s)


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def new_folder() -> Path:
    """A folder that PostgreSQL's own user can pass through, should the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="gowebbo-e2e-"))
    folder.chmod(0o711)
    return folder


_removals: list["subprocess.Popen[bytes]"] = []
"""Two hundred databases are sixty thousand files: other tests run while they are deleted."""


def finish_removals() -> None:
    """Waits until every discarded folder is gone."""
    while _removals:
        _removals.pop().wait()


class EmbeddedStack:
    """`gowebbo up` as a subprocess in a session of its own."""

    def __init__(self, folder: Path, *, port: int | None = None, home: str = "home", **settings: str) -> None:
        self.folder = folder
        self.home = folder / home
        self.output = folder / "up.log"
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{name: os.environ[name] for name in _KEPT_FROM_CALLER if name in os.environ},
            "GOWEBBO_HOME": str(self.home),
            "PORT": str(self.port),
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self, *command: str) -> "subprocess.Popen[bytes]":
        """Starts `gowebbo up`, or the command that is named, and doesn't wait."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command or (str(GOWEBBO), "up"),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.process

    def start(self, *command: str) -> "EmbeddedStack":
        """Starts it and waits until `/readyz` is 200."""
        self.launch(*command)
        self.wait_until_ready(timeout_s=START_TIMEOUT_S)
        return self

    def wait_until_ready(self, *, timeout_s: float) -> None:
        """Waits for `/readyz`; fails at once when the process has ended."""
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            has_ended = self.process is not None and self.process.poll() is not None
            if has_ended or time.monotonic() > deadline:
                raise AssertionError(f"the stack is not ready:\n{self.printed()[-4000:]}")
            time.sleep(POLL_S)

    def is_ready(self) -> bool:
        """Whether `/readyz` is 200 now."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def stop(self, *, how: signal.Signals = signal.SIGTERM) -> int:
        """Signals `up` alone and returns its exit status. Fails when it takes longer than the contract allows."""
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(STOP_TIMEOUT_S)

    def discard(self) -> None:
        """Ends whatever is left, by force if need be, and removes the folder. For fixtures.

        The logs are kept in the folder that E2E_LOGS names, if it names one.
        """
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                for child in self.descendants():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.kill()
                self.process.kill()
                self.process.wait()
        if "E2E_LOGS" in os.environ:
            kept = Path(os.environ["E2E_LOGS"]) / self.folder.name
            shutil.copytree(self.home / "logs", kept, dirs_exist_ok=True)
            shutil.copy(self.output, kept)
        _removals.append(subprocess.Popen(["rm", "-rf", self.folder]))

    def descendants(self) -> list[psutil.Process]:
        """Every process below `up`, now."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def printed(self) -> str:
        """What `up` has printed so far."""
        return self.output.read_text(errors="replace")

    def command(self, *words: str, timeout_s: float = 60) -> "subprocess.CompletedProcess[str]":
        """Runs `gowebbo …` beside the stack."""
        return subprocess.run(
            [str(GOWEBBO), *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def command_json(self, *words: str) -> Any:
        """The same with `--json`; the command must succeed."""
        done = self.command(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def status(self) -> dict[str, Any]:
        """`gowebbo status --json`."""
        shown = self.command_json("status")
        assert isinstance(shown, dict)
        return shown

    def dsn(self, database: str = "postgres") -> str:
        """The superuser's URL of a database of server `a`."""
        return with_database(self.status()["postgres"]["dsn"], database)

    def central_database(self) -> str:
        """The name of the one database that is neither a template, nor a shard, nor PostgreSQL's own."""
        [name] = column(
            self.dsn(),
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
            " AND NOT starts_with(datname, 'shard')",
        )
        return str(name)

    @property
    def mailbox(self) -> "Mailbox":
        """The mails it caught."""
        return Mailbox(self.home / "mailbox")


def with_database(dsn: str, database: str) -> str:
    """The DSN with another database as its path."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{database}"))


@contextlib.contextmanager
def psql(dsn: str) -> Iterator[psycopg2.extensions.cursor]:
    """A cursor in autocommit."""
    connection = psycopg2.connect(dsn, connect_timeout=5)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def rows(dsn: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Every row of one statement."""
    with psql(dsn) as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def column(dsn: str, statement: str, *values: Any) -> list[Any]:
    """The first column of every row."""
    return [row[0] for row in rows(dsn, statement, *values)]


def pids_of(entry: dict[str, Any]) -> list[int]:
    """The process ids of an entry of `status`; empty while it restarts."""
    found = entry["pids"] if "pids" in entry else [entry["pid"]]
    return [pid for pid in found or [] if pid]


def kill_and_wait(stack: EmbeddedStack, name: str, number: int, until: Callable[[], None] = lambda: None) -> None:
    """Kills one process, does something else, and waits until that process alone was started anew."""
    before = stack.status()
    victim = pids_of(before[name])[number]
    os.kill(victim, signal.SIGKILL)
    until()
    eventually(
        lambda: (now := stack.status()[name]["pids"]) and now[number] not in {None, victim},
        f"{name} runs again",
        timeout_s=BACK_WITHIN_S,
    )
    after = stack.status()
    assert set(all_pids(before)) - set(all_pids(after)) == {victim}


def all_pids(status: dict[str, dict[str, object]]) -> list[int]:
    """Every process of every entry."""
    return [pid for entry in status.values() for pid in pids_of(entry)]


class Mailbox:
    """The Maildir of caught mail."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, EmailMessage] = {}

    def messages(self) -> list[EmailMessage]:
        """Every mail so far."""
        for place in ("new", "cur"):
            for path in sorted((self._folder / place).glob("*")):
                name = path.name.partition(":")[0]
                if name not in self._read:
                    with contextlib.suppress(FileNotFoundError):  # moved to cur/ in this moment
                        self._read[name] = BytesParser(EmailMessage, policy=email.policy.default).parsebytes(
                            path.read_bytes()
                        )
        return list(self._read.values())

    def sent_to(self, address: str) -> list[EmailMessage]:
        """The mails to an address."""
        return [message for message in self.messages() if address.lower() in str(message["To"]).lower()]

    def wait_for(self, address: str, *, timeout_s: float = 10) -> EmailMessage:
        """The first mail to an address."""
        return eventually(lambda: self.sent_to(address), f"a mail to {address}", timeout_s=timeout_s)[0]

    def missing(self, addresses: set[str]) -> set[str]:
        """The addresses that no mail has reached yet."""
        reached = {str(message["To"]).lower() for message in self.messages()}
        return {address for address in addresses if not any(address.lower() in to for to in reached)}


def new_secret() -> str:
    """A signing secret of 256 bits."""
    return secrets.token_hex(32)
