"""The embedded PostgreSQL survives what happens to processes on people's machines."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import psycopg2
import pytest

from gowebbo_stack import postgres as module
from gowebbo_stack.launching import Identity, start
from gowebbo_stack.ports import free_port
from gowebbo_stack.postgres import Postgres, PostgresError, blocking_folder


@pytest.fixture
def server(tmp_path):
    server = Postgres(tmp_path / "data", free_port(), "secret", max_connections=50)
    server.initialise()
    return server


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


def test_a_pid_that_was_taken_by_another_program_does_not_keep_it_from_starting(server, tmp_path):
    log = tmp_path / "log"
    with running(server, log) as process:
        process.kill()
        process.wait()
    lock = server.data / "postmaster.pid"
    with subprocess.Popen(["sleep", "60"]) as stranger:
        lock.write_text("\n".join([str(stranger.pid), *lock.read_text().splitlines()[1:]]) + "\n")
        with running(server, log):
            assert query(server, "SELECT 1") == [(1,)]
        stranger.kill()


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


def test_a_folder_that_nobody_cannot_enter_is_named_with_the_way_out(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = Postgres(closed / "data", free_port(), "secret", identity=Identity.NOBODY)
    with pytest.raises(PostgresError, match="GOWEBBO_HOME="):
        server.launch(tmp_path / "log")
    assert blocking_folder(closed) in {closed, *closed.parents}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_it_runs_as_nobody_where_user_namespaces_are_forbidden(tmp_path_factory, tmp_path, monkeypatch):
    folder = tmp_path_factory.mktemp("open")
    for path in [folder, *folder.parents]:
        if path.stat().st_uid == 0 and path.name.startswith(("pytest-", "popen-", "open")):
            path.chmod(0o711)
    monkeypatch.setattr(module, "blocking_folder", lambda path: None if path == folder else path)
    server = Postgres(folder / "data", free_port(), "secret", max_connections=50, identity=Identity.NOBODY)
    server.initialise()
    with running(server, tmp_path / "log") as process:
        assert query(server, "SELECT 1") == [(1,)]
        assert Path(f"/proc/{process.pid}").stat().st_uid != 0
    assert (folder / "postgres-programs").is_dir(), "unreachable programs are copied beside the data"
