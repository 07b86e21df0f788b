"""The embedded PostgreSQL survives what happens to processes on people's machines."""

import contextlib
import os
import pwd
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg2
import pytest

from gowebbo_stack import launching
from gowebbo_stack.launching import Identity, IdentityError, Launch, ordinary_identity, run, start, works
from gowebbo_stack.ports import free_port
from gowebbo_stack.postgres import Postgres

IDENTITIES = (
    [Identity.CURRENT] if os.geteuid() else [one for one in (Identity.NAMESPACE, Identity.NOBODY) if works(one)]
)


@pytest.fixture
def server():
    """Where the path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        server = Postgres(Path(folder, "data"), free_port(), "secret", max_connections=50)
        server.initialise()
        yield server


@contextlib.contextmanager
def running(server, log):
    """Start as the supervisor does: again and again until it stays."""
    deadline = time.monotonic() + 60
    server.before_start()
    process = start(server.launch(log))
    while not server.accepts_connections():
        assert time.monotonic() < deadline, log.read_text()
        if process.poll() is not None:
            server.before_start()
            process = start(server.launch(log))
        time.sleep(0.02)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def query(server, sql):
    with contextlib.closing(psycopg2.connect(server.dsn())) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else None


def test_nothing_committed_is_lost_when_the_postmaster_is_killed(server, tmp_path):
    log = tmp_path / "log"
    with running(server, log) as process:
        query(server, "CREATE TABLE kept AS SELECT 1 AS one")
        holder = psycopg2.connect(server.dsn())  # a backend that holds the shared memory for a moment more
        process.kill()
        process.wait()
        with running(server, log):
            assert query(server, "SELECT one FROM kept") == [(1,)]
        holder.close()


def checkpointer_of(server):
    [[pid]] = query(server, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
    return pid


@contextlib.contextmanager
def held(pid):
    """A process that does not react meanwhile, and does not outlive a test that fails."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("identity", IDENTITIES)
def test_a_process_too_busy_to_see_that_the_postmaster_is_dead_does_not_keep_it_from_starting(tmp_path, identity):
    """As the checkpointer is while it writes out thousands of files: it holds the shared memory."""
    server = Postgres(tmp_path / "data", free_port(), "secret", max_connections=50, identity=identity)
    server.initialise()
    log = tmp_path / "log"
    with running(server, log) as process:
        query(server, "CREATE TABLE kept AS SELECT 1 AS one")
        with held(checkpointer_of(server)):
            process.kill()
            process.wait()
            with running(server, log):
                assert query(server, "SELECT one FROM kept") == [(1,)]


def test_a_shell_in_the_data_folder_is_left_alone(server, tmp_path):
    with running(server, tmp_path / "log") as process:
        process.kill()
        process.wait()
    with subprocess.Popen(["sleep", "60"], cwd=server.data) as stranger:
        with running(server, tmp_path / "log"):
            assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("is_copy", [False, True], ids=["killed", "copied"])
def test_a_pid_that_was_taken_by_another_program_does_not_keep_it_from_starting(server, tmp_path, is_copy):
    """Nor in a copy of a running server's folder: without `postmaster.pid`, but with the socket's own lock file."""
    log = tmp_path / "log"
    with running(server, log) as process:
        process.kill()
        process.wait()
    locks = [server.data / f".s.PGSQL.{server.port}.lock", server.data / "postmaster.pid"]
    if is_copy:
        locks.pop().unlink()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        for lock in locks:
            lock.write_text("\n".join([str(stranger.pid), *lock.read_text().splitlines()[1:]]) + "\n")
        with running(server, log):
            assert query(server, "SELECT 1") == [(1,)]
        stranger.kill()


def test_services_connect_by_a_socket_that_nobody_else_can_reach(server, tmp_path):
    assert server.host == str(server.data)
    with running(server, tmp_path / "log"):
        with contextlib.closing(psycopg2.connect(server.dsn(), host=server.host)) as connection:
            assert connection.info.host == server.host
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(server.dsn(), host=server.host, password="")  # no trust
        assert stat.S_IMODE(server.data.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["n" * 100, "a folder", "a,b"], ids=["long", "blank", "comma"])
def test_a_path_that_is_no_place_for_a_socket_is_served_by_tcp(tmp_path, name):
    server = Postgres(tmp_path / name, free_port(), "secret", max_connections=50)
    assert server.host == "127.0.0.1"
    server.initialise()
    with running(server, tmp_path / "log"):
        assert query(server, "SHOW unix_socket_directories") == [("",)]


def test_durability_is_on_and_many_connections_are_allowed(server, tmp_path):
    with running(server, tmp_path / "log"):
        for setting, value in {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "max_connections": "50",
            "recovery_init_sync_method": "syncfs",
            "listen_addresses": "127.0.0.1",
        }.items():
            assert query(server, f"SHOW {setting}") == [(value,)]


def test_no_value_reaches_the_log(server, tmp_path):
    log = tmp_path / "log"
    with running(server, log):
        query(server, "CREATE TABLE people (mail text PRIMARY KEY)")
        query(server, "INSERT INTO people VALUES ('ada@example.com')")
        for sql in ("INSERT INTO people VALUES ('ada@example.com')", "SELECT 'ada@example.com'::int", "nonsense ada@"):
            with pytest.raises(psycopg2.Error):
                query(server, sql)
    assert "ada@" not in log.read_text()


def test_an_interrupted_initdb_is_done_again(tmp_path):
    server = Postgres(tmp_path / "data", free_port(), "secret", max_connections=50)
    (tmp_path / "data.unfinished" / "base").mkdir(parents=True)
    server.initialise()
    with running(server, tmp_path / "log"):
        assert query(server, "SELECT 1") == [(1,)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "log"]


@pytest.mark.parametrize("identity", IDENTITIES)
def test_it_runs_in_a_folder_that_only_its_user_may_enter(tmp_path, identity):
    """Root's home is such a folder."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = Postgres(closed / "data", free_port(), "secret", max_connections=50, identity=identity)
    server.initialise()
    with running(server, tmp_path / "log") as process:
        assert query(server, "SELECT 1") == [(1,)]
        assert (Path(f"/proc/{process.pid}").stat().st_uid == os.geteuid()) == (identity is not Identity.NOBODY)


def test_root_may_start_it_in_another_way_than_last_time(tmp_path):
    port = free_port()
    for identity in [*IDENTITIES, *IDENTITIES]:
        server = Postgres(tmp_path / "data", port, "secret", max_connections=50, identity=identity)
        server.initialise()
        with running(server, tmp_path / "log"):
            query(server, "CREATE TABLE IF NOT EXISTS kept ()")


def test_as_nobody_it_keeps_no_right_of_roots_but_to_pass_by_permissions(tmp_path):
    for identity in set(IDENTITIES) & {Identity.NOBODY}:
        log = tmp_path / "log"
        launch = Launch(["/bin/grep", "^Cap[PEA]\\|^Groups", "/proc/self/status"], {}, log=log, identity=identity)
        assert run(launch, timeout_s=30) == 0
        shown = dict(line.split(":") for line in log.read_text().splitlines())
        assert {name: value.strip() for name, value in shown.items()} == {
            "Groups": "",
            **dict.fromkeys(("CapPrm", "CapEff", "CapAmb"), f"{2:016x}"),
        }


@pytest.mark.parametrize("identity", IDENTITIES)
def test_the_user_it_runs_as_has_a_name(tmp_path, identity):
    """Without one initdb gives up."""
    log = tmp_path / "log"
    launch = Launch(["/bin/sh", "-c", "id -un"], {"PATH": os.defpath}, log=log, identity=identity)
    assert run(launch, timeout_s=30) == 0, log.read_text()
    assert log.read_text().strip() == ("nobody" if os.geteuid() == 0 else pwd.getpwuid(os.getuid()).pw_name)


def test_a_root_that_can_become_nobody_else_is_told_so(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(launching, "works", lambda identity: False)
    with pytest.raises(IdentityError, match="as an ordinary user"):
        ordinary_identity()
