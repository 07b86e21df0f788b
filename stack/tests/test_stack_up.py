"""`gowebbo up` with toys as services: PostgreSQL, Valkey, mailbox, supervision and commands are the real ones."""

import json
import os
import signal
import socket
import urllib.request
from pathlib import Path

import psycopg2
import pytest
import redis

from gowebbo_stack.home import started_at

ENTRIES = [
    "gateway",
    "auth-service",
    "tenant-service",
    "patient-service",
    "notifier",
    "notifier-worker",
    "postgres",
    "redis",
    "mailbox",
]


def answer(up):
    with urllib.request.urlopen(f"http://127.0.0.1:{up.port}/readyz", timeout=30) as response:
        return json.load(response)


def gone(pids):
    return all(started_at(pid) is None for pid in pids)


def test_it_starts_tells_how_to_use_it_and_stops_without_a_trace(run_up, eventually):
    up = run_up().ready()
    for words in (f"http://127.0.0.1:{up.port}", "Caught mail", "admin / ", "curl "):
        eventually(lambda words=words: words in up.text())  # "ready" is the first line of what is printed then
    pids = up.pids()
    for _ in range(3):  # impatient people press Ctrl-C again
        up.process.send_signal(signal.SIGINT)
    assert up.process.wait(60) == 0
    assert gone(pids)
    assert up.command("status").returncode == 1
    assert not (up.home / "run").exists()


def test_status_names_every_process_and_works_for_scripts(run_up):
    up = run_up(EMBEDDED_SERVERS="2").ready()
    status = up.status()
    assert sorted(status) == sorted([*ENTRIES, "postgres-b"])
    assert all(isinstance(entry["pid"], int) for entry in status.values())
    assert status["gateway"] == {"url": f"http://127.0.0.1:{up.port}", "pid": answer(up)["pid"]}
    for name in ("auth-service", "tenant-service", "patient-service", "notifier"):
        scheme, path = status[name]["url"].split(":", 1)
        assert scheme == "unix"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
    for name in ("postgres", "postgres-b"):
        with psycopg2.connect(status[name]["dsn"]) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
            assert cursor.fetchone() == (True,)
    with redis.Redis.from_url(status["redis"]["url"]) as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}
    assert status["mailbox"]["path"] == str(up.home / "mailbox")
    assert status["postgres"]["dsn"].split("@")[0] not in up.command("status").stdout, "no password on the screen"


def test_everything_comes_back_after_kill_9(run_up, eventually):
    up = run_up().ready()
    before = {name: entry["pid"] for name, entry in up.status().items()}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    during = up.command("status", "--json")
    assert during.returncode == 0, "a restart is no failure"

    def all_new():
        now = {name: entry["pid"] for name, entry in up.status().items()}
        return all(now[name] not in {None, before[name]} for name in before)

    eventually(all_new)
    assert answer(up)["pid"] == up.status()["gateway"]["pid"]
    dsn = up.status()["postgres"]["dsn"]
    eventually(lambda: connects(dsn))
    for name in before:
        assert f"{name} was killed by SIGKILL" in up.text()


def test_several_processes_of_a_service_are_each_started_anew_by_itself(run_up, eventually):
    up = run_up(GATEWAY_PROCESSES="2", PATIENT_PROCESSES="2").ready()
    for name in ("gateway", "patient-service"):
        before = up.status()
        entry = before[name]
        assert set(entry) == {"url", "pids"}
        first, second = entry["pids"]
        for number, victim in enumerate((first, second)):
            others = [pid for pid in up.pids() if pid != victim]
            os.kill(victim, signal.SIGKILL)
            during = up.command("status", "--json")
            assert (during.returncode, len(json.loads(during.stdout)[name]["pids"])) == (0, 2)
            eventually(lambda name=name, number=number, victim=victim: new(up.status()[name]["pids"][number], victim))
            assert set(others) <= set(up.pids()), "nobody else was started anew"
        assert f"{name} was killed by SIGKILL" in up.text()
        assert f"{name}-2 was killed by SIGKILL" in up.text()
        assert (up.home / "logs" / f"{name}-2.log").exists()
        assert up.status()[name]["url"] == before[name]["url"]
    pids = up.pids()
    assert up.end() == 0
    assert gone(pids)


def new(pid, old):
    return pid not in {None, old}


def test_one_of_several_gateways_answers_while_another_is_down(run_up):
    up = run_up(GATEWAY_PROCESSES="2").ready()
    first, second = up.status()["gateway"]["pids"]
    os.kill(first, signal.SIGSTOP)
    try:
        for _ in range(20):
            assert answer(up)["pid"] == second
    finally:
        os.kill(first, signal.SIGCONT)


def connects(dsn):
    try:
        psycopg2.connect(dsn).close()
    except psycopg2.OperationalError:
        return False
    return True


def test_clients_wait_instead_of_being_refused_while_a_service_restarts(run_up):
    up = run_up().ready()
    first = answer(up)["pid"]
    os.kill(first, signal.SIGKILL)
    assert answer(up)["pid"] != first


@pytest.mark.parametrize("processes", ["1", "2"])
def test_nothing_survives_a_kill_9_of_up_itself_and_the_next_one_recovers(run_up, processes):
    up = run_up(GATEWAY_PROCESSES=processes, PATIENT_PROCESSES=processes).ready()
    execute(up, "CREATE TABLE kept AS SELECT 1 AS one")
    pids = up.pids()
    up.process.kill()
    up.process.wait()
    assert up.command("status", "--json").returncode == 1
    again = run_up().ready()
    assert gone(pids)
    assert execute(again, "SELECT one FROM kept") == [(1,)]


def execute(up, sql):
    connection = psycopg2.connect(up.status()["postgres"]["dsn"])
    with connection, connection.cursor() as cursor:
        cursor.execute(sql)
        found = cursor.fetchall() if cursor.description else []
    connection.close()
    return found


@pytest.fixture
def busy_up(run_up):
    """A stack whose PostgreSQL can't write out what it holds: as slow as with thousands of new databases."""
    up = run_up().ready()
    execute(up, "CREATE TABLE kept AS SELECT 1 AS one")
    [[checkpointer]] = execute(up, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
    os.kill(checkpointer, signal.SIGSTOP)
    yield up, checkpointer
    if started_at(checkpointer):
        os.kill(checkpointer, signal.SIGKILL)


def test_a_postgres_that_has_no_time_to_write_everything_out_loses_nothing(busy_up, run_up, eventually):
    up, checkpointer = busy_up
    pids = up.pids()
    up.process.send_signal(signal.SIGTERM)
    eventually(lambda: "postgres did not stop within" in up.text())
    os.kill(checkpointer, signal.SIGCONT)
    assert up.process.wait(60) == 0
    assert gone([*pids, checkpointer])
    assert "received immediate shutdown request" in (up.home / "logs" / "postgres.log").read_text()
    assert execute(run_up().ready(), "SELECT one FROM kept") == [(1,)]


def test_people_are_told_why_a_recovery_takes_so_long(run_up, toys):
    (toys / "sitecustomize.py").write_text("""
import time
from gowebbo_stack import postgres, stack
stack._RECOVERY_NOTICE_S = 1
accepts_connections = postgres.Postgres.accepts_connections
def slowly(server):
    time.sleep(2)
    return accepts_connections(server)
postgres.Postgres.accepts_connections = slowly
""")
    assert "postgres takes its time" in run_up().ready().text()


def test_a_postgres_that_still_writes_after_a_kill_9_of_up_is_in_nobodys_way(busy_up, run_up):
    up, checkpointer = busy_up
    up.process.kill()
    up.process.wait()
    again = run_up().ready()
    assert gone([checkpointer])
    assert "received immediate shutdown request" in (up.home / "logs" / "postgres.log").read_text()
    assert execute(again, "SELECT one FROM kept") == [(1,)]


def test_two_stacks_run_side_by_side_but_not_in_one_home(run_up):
    first, second = run_up("one"), run_up("two")
    first.ready()
    second.ready()
    assert not {e["pid"] for e in first.status().values()} & {e["pid"] for e in second.status().values()}
    third = first.command("up")
    assert third.returncode == 1
    assert "Another stack is running" in third.stdout
    assert first.status()["gateway"]["pid"] == answer(first)["pid"]


def test_it_runs_on_when_nobody_reads_its_output_any_more(run_up, eventually):
    up = run_up(piped=True)
    while "GoWebbo is ready" not in up.process.stdout.readline().decode():
        assert up.process.poll() is None
    up.process.stdout.close()
    for _ in range(2):  # the first line meets the closed pipe, the second one what that has left
        first = up.status()["gateway"]["pid"]
        os.kill(first, signal.SIGKILL)
        eventually(lambda first=first: up.status()["gateway"]["pid"] not in {None, first})
    assert up.end() == 0


def test_a_taken_port_is_told(run_up):
    with socket.create_server(("127.0.0.1", 0)) as other:
        up = run_up(PORT=str(other.getsockname()[1]))
        assert up.process.wait(60) == 1
    assert "Address already in use" in up.text()


def test_a_long_home_gets_its_sockets_elsewhere(run_up):
    up = run_up("a-folder-with-a-long-name-" * 5).ready()
    path = up.status()["auth-service"]["url"].removeprefix("unix:")
    assert len(path) <= 107
    assert up.end() == 0
    assert not Path(path).parent.exists()


def test_a_home_with_a_comma_gets_its_sockets_elsewhere(run_up):
    """The gateway reads a comma-separated list of addresses."""
    up = run_up("Home, sweet home").ready()
    assert "," not in up.status()["patient-service"]["url"]
    assert answer(up)["environment"]["PATIENT_SERVICE_URL"] == up.status()["patient-service"]["url"]


def test_it_can_be_stopped_while_it_starts(run_up, toys, eventually):
    (toys / "tenant_service" / "cli.py").write_text("import time; time.sleep(60)")
    up = run_up()
    eventually(lambda: "PostgreSQL" in up.text())
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(60) == 0


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("tenant_service/cli.py", "prepare failed with status 3"),
        ("auth_service/cli.py", "migrate-auth failed with status 3"),
        ("gateway/__main__.py", "gateway does not become ready"),
    ],
)
def test_what_does_not_start_is_told_with_its_own_words(run_up, toys, file, words):
    (toys / file).write_text("print('the fuse is blown'); raise SystemExit(3)")
    up = run_up()
    assert up.process.wait(60) == 1
    assert words in up.text()
    assert "the fuse is blown" in up.text()


def test_services_that_refuse_their_settings_are_told_together(run_up, toys):
    for package in ("gateway", "patient_service"):
        (toys / package / "__main__.py").write_text(f"print('{package} is unhappy'); raise SystemExit(78)")
    up = run_up()
    assert up.process.wait(60) == 1
    assert "gateway is unhappy" in up.text()
    assert "patient_service is unhappy" in up.text()
