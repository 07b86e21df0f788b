"""`up`, `status`, `practices list`, `servers list`, as people and scripts use them."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from e2e_api import PATIENTS, Api, Practice, assert_error
from e2e_stack import (
    GOWEBBO,
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    EmbeddedStack,
    StackFactory,
    column,
    eventually,
    free_port,
    pids_of,
    rows,
)

ROOT = Path(__file__).parents[1]
SERVICES = {"gateway", "auth-service", "tenant-service", "patient-service", "notifier"}
ENTRIES = SERVICES | {"notifier-worker", "postgres", "redis", "mailbox"}
SHORT_TOKENS_S = 3


@pytest.fixture(scope="module")
def first(new_stack: StackFactory) -> EmbeddedStack:
    """A stack with nothing set but its place and port: secrets are generated."""
    return new_stack().start()


@pytest.fixture(scope="module")
def first_api(first: EmbeddedStack) -> Iterator[Api]:
    api = Api(first.url)
    yield api
    api.close()


@pytest.fixture(scope="module")
def resident(first_api: Api) -> Practice:
    """A practice with a patient, whose data must survive everything below."""
    joined = Practice.join(first_api)
    joined.new_patient(name="Resident")
    return joined


def _assert_still_there(resident: Practice) -> None:
    """The old token works, for the secrets were kept, and shows the old patient."""
    assert [one["name"] for one in resident.patients()] == ["Resident"]


def _assert_all_gone(processes: list[psutil.Process], *, timeout_s: float) -> None:
    eventually(
        lambda: not [one for one in processes if _runs(one)],
        f"the end of {len(processes)} processes",
        timeout_s=timeout_s,
    )


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _stop_and_check(stack: EmbeddedStack, how: signal.Signals = signal.SIGTERM) -> None:
    children = stack.descendants()
    assert len(children) >= len(ENTRIES) - 1
    assert stack.stop(how=how) == 0, stack.printed()[-2000:]
    _assert_all_gone(children, timeout_s=1)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", stack.port))


# what it shows


def test_status_has_the_shape_that_scripts_rely_on(first: EmbeddedStack) -> None:
    shown = first.status()
    assert set(shown) >= ENTRIES
    for name, entry in shown.items():
        assert isinstance(entry, dict)
        assert pids_of(entry), name
        assert all(psutil.pid_exists(pid) for pid in pids_of(entry)), name
    for name in SERVICES:
        assert re.match(r"http://|unix:/", shown[name]["url"]), name
    assert shown["gateway"]["url"] == first.url
    assert shown["redis"]["url"].startswith("redis://")
    assert Path(shown["mailbox"]["path"]) == first.home / "mailbox"
    assert shown["postgres"]["dsn"].startswith("postgresql://")
    assert "127.0.0.1" in shown["postgres"]["dsn"]
    assert rows(shown["postgres"]["dsn"], "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(True,)]


def test_status_exits_0_and_says_null_while_a_process_restarts(first: EmbeddedStack) -> None:
    pid = first.status()["notifier-worker"]["pid"]
    os.kill(pid, signal.SIGKILL)
    after = first.status()["notifier-worker"]["pid"]
    assert after is None or after != pid
    eventually(lambda: first.status()["notifier-worker"]["pid"], "the worker runs again", timeout_s=30)
    assert "notifier-worker" in first.printed()


def test_up_prints_progress_urls_the_admins_credentials_and_a_curl_to_try(first: EmbeddedStack) -> None:
    printed = first.printed()
    assert first.url in printed
    assert first.status()["mailbox"]["url"] in printed
    [(name, password)] = re.findall(r"Admin\s+(\S+) / (\S+)", printed)
    assert httpx.get(f"{first.url}/api/v1/admin/practices", auth=(name, password)).status_code == 200
    command = printed[printed.index("curl ") :].partition("\n\n")[0]
    tried = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert '"success":true' in tried.stdout


def test_caught_mail_can_be_read_on_a_page(first: EmbeddedStack, resident: Practice) -> None:
    first.mailbox.wait_for(resident.email)
    page = httpx.get(first.status()["mailbox"]["url"])
    assert page.status_code == 200
    assert resident.email in page.text


def test_practices_list_is_a_table_for_people_and_json_for_scripts(first: EmbeddedStack, resident: Practice) -> None:
    listed = first.command_json("practices", "list")
    assert all(set(one) == {"id", "name", "email", "status", "server", "database"} for one in listed)
    [itself] = [one for one in listed if one["id"] == resident.id]
    assert (itself["name"], itself["email"], itself["status"], itself["server"]) == (
        resident.name,
        resident.email,
        "active",
        "a",
    )
    assert column(first.dsn(itself["database"]), "SELECT name FROM patients") == ["Resident"]
    table = first.command("practices", "list")
    assert table.returncode == 0
    assert itself["database"] in table.stdout


def test_servers_list_counts_practices_and_connections(first: EmbeddedStack, resident: Practice) -> None:
    [server] = first.command_json("servers", "list")
    assert set(server) == {"key", "host", "port", "state", "practices", "capacity", "connections"}
    assert (server["key"], server["state"]) == ("a", "open")
    assert server["practices"] == len(first.command_json("practices", "list"))
    assert server["connections"] > 0
    assert first.command("servers", "list").returncode == 0


# what it refuses


def _refused(folder: Path, **settings: str) -> str:
    """What `up` says when it won't start; it must say so soon, and exit with a failure."""
    stack = EmbeddedStack(folder, **settings)
    process = stack.launch()
    try:
        assert process.wait(30) != 0
        return stack.printed()
    finally:
        if process.poll() is None:
            stack.stop()


def test_all_faulty_settings_are_reported_at_once_and_no_value_is_shown(tmp_path: Path) -> None:
    printed = _refused(
        tmp_path,
        JWT_SECRET="too-short-7f3a",
        GATEWAY_SECRET="your_secret_key_your_secret_key_your_secret_key",
        ADMIN_PASSWORD="short-7f3a",
        EMBEDDED_MAX_CONNECTIONS="many",
    )
    for name in ("JWT_SECRET", "GATEWAY_SECRET", "ADMIN_PASSWORD", "EMBEDDED_MAX_CONNECTIONS"):
        assert name in printed
    assert "7f3a" not in printed


def test_a_second_up_on_the_same_folder_is_refused_and_the_first_runs_on(
    first: EmbeddedStack, resident: Practice
) -> None:
    second = subprocess.run(
        [str(GOWEBBO), "up"],
        env=first.environment | {"PORT": str(free_port())},
        cwd=first.folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode != 0
    assert str(first.home) in second.stdout + second.stderr
    _assert_still_there(resident)


def test_a_port_that_is_taken_is_named(first: EmbeddedStack, tmp_path: Path) -> None:
    printed = _refused(tmp_path, PORT=str(first.port))
    assert str(first.port) in printed
    assert "Traceback" not in printed


# two of them


def test_two_stacks_run_side_by_side_and_know_nothing_of_each_other(
    first: EmbeddedStack, resident: Practice, new_stack: StackFactory
) -> None:
    second = new_stack(EMBEDDED_SERVERS="2", TOKEN_EXPIRE_IN=str(SHORT_TOKENS_S)).start()
    shown, other = second.status(), first.status()
    assert not {pid for entry in shown.values() for pid in pids_of(entry)} & {
        pid for entry in other.values() for pid in pids_of(entry)
    }
    assert rows(shown["postgres-b"]["dsn"], "SELECT 1") == [(1,)]

    api = Api(second.url)
    joined = [Practice.join(api) for _ in range(4)]
    for one in joined:
        one.new_patient(name=one.name)
    listed = second.command_json("practices", "list")
    assert {one["id"] for one in listed} == {one.id for one in joined}
    assert {one["server"] for one in listed} == {"a", "b"}
    assert {one["key"]: one["practices"] for one in second.command_json("servers", "list")} == {"a": 2, "b": 2}
    assert_error(api.get(PATIENTS, token=resident.token), 401)
    assert_error(api.log_in(resident.email), 401)

    expired = eventually(
        lambda: (answer := joined[0].get(PATIENTS)).status_code != 200 and answer,
        "the token has expired",
        timeout_s=10 * SHORT_TOKENS_S,
    )
    assert_error(expired, 401)
    assert 'error="invalid_token"' in expired.headers["www-authenticate"]
    api.close()
    assert second.stop() == 0
    _assert_still_there(resident)


# stopping and coming back


def test_sigterm_stops_everything_and_the_data_is_kept(first: EmbeddedStack, resident: Practice) -> None:
    _stop_and_check(first)
    first.start()
    _assert_still_there(resident)


def test_ctrl_c_to_the_whole_group_stops_everything(first: EmbeddedStack, resident: Practice) -> None:
    assert first.process is not None
    children = first.descendants()
    os.killpg(first.process.pid, signal.SIGINT)
    assert first.process.wait(STOP_TIMEOUT_S) == 0
    _assert_all_gone(children, timeout_s=1)
    first.start()
    _assert_still_there(resident)


def test_after_kill_9_of_up_itself_nothing_remains_and_the_next_up_recovers(
    first: EmbeddedStack, resident: Practice
) -> None:
    assert first.process is not None
    children = first.descendants()
    first.process.kill()
    first.process.wait()
    _assert_all_gone(children, timeout_s=STOP_TIMEOUT_S)
    first.start()
    _assert_still_there(resident)


def test_up_recovers_at_once_from_a_kill_9_without_waiting_for_the_remains(
    first: EmbeddedStack, resident: Practice
) -> None:
    assert first.process is not None
    first.process.kill()
    first.process.wait()
    first.start()
    _assert_still_there(resident)


def test_make_up_ends_with_0_when_only_the_stack_is_signalled(first: EmbeddedStack, resident: Practice) -> None:
    _stop_and_check(first)
    environment = Path(sys.executable).parents[1]
    make = first.launch("make", "-C", str(ROOT), f"VENV={environment}", "-o", f"{environment}/.installed", "up")
    first.wait_until_ready(timeout_s=START_TIMEOUT_S)
    _assert_still_there(resident)
    up = [one for one in psutil.Process(make.pid).children() if "up" in one.cmdline()]
    below = first.descendants()
    assert len(up) == 1
    os.kill(up[0].pid, signal.SIGTERM)
    assert make.wait(STOP_TIMEOUT_S) == 0, first.printed()[-2000:]
    _assert_all_gone(below, timeout_s=1)
    first.start()
    _assert_still_there(resident)
