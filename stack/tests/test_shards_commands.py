"""`shards status` and `shards migrate`: followed as jobs, over pages and silences, and honest in their exit codes."""

import http.server
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gowebbo_stack import operations
from gowebbo_stack.admin import Admin, CommandFailedError

CREDENTIALS = {"ADMIN_USER_NAME": "root", "ADMIN_PASSWORD": "a-good-password"}
JOB = {
    "id": "j1",
    "kind": "migrate-shards",
    "state": "waiting",
    "done": 0,
    "total": None,
    "result": None,
    "error": None,
}


def shard(number: int, state: str) -> dict[str, Any]:
    return {
        "practice_id": f"p{number}",
        "server": "a",
        "database": f"shard_{number}",
        "revision": "0002",
        "fingerprint_ok": state != "drifted",
        "state": state,
        "seconds": 0.1,
        "error": "- index\n+ table" if state == "drifted" else None,
    }


def outcome(*states: str, stopped: bool = False) -> dict[str, Any]:
    return {"head": "0002", "stopped": stopped, "shards": [shard(number, state) for number, state in enumerate(states)]}


class Gateway(http.server.ThreadingHTTPServer):
    """Tells a job's stations one after the other: an integer is a refusal with that status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.stations: list[dict[str, Any] | int] = []
        self.shards: list[dict[str, Any]] = []
        self.orders: list[Any] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self):
        path, query = urlsplit(self.path).path.removeprefix("/api/v1/admin/"), parse_qs(urlsplit(self.path).query)
        if path == "servers":
            return self.send(200, {"data": [{"key": "a", "practices": len(self.server.shards)}]})
        if path == "shards/status":
            start = int(query.get("cursor", ["0"])[0])
            page = {"head": "0002", "data": self.server.shards[start : start + 2]}
            if start + 2 < len(self.server.shards):
                page["next_cursor"] = str(start + 2)
            return self.send(200, page)
        assert path == "jobs/j1"
        stations = self.server.stations
        station = stations.pop(0) if len(stations) > 1 else stations[0]
        return self.send(station, None) if isinstance(station, int) else self.send(200, JOB | station)

    def do_POST(self):
        assert self.path == "/api/v1/admin/shards/migrate"
        self.server.orders.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send(202, JOB)

    def send(self, status, result):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps({"message": "As it is.", "result": result}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def shards(tmp_path, gateway: Gateway) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs `gowebbo shards …`."""

    def run(*words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": os.environ["PATH"], "GOWEBBO_HOME": str(tmp_path), "GOWEBBO_URL": gateway.url}
        return subprocess.run(
            [sys.executable, "-m", "gowebbo_stack", "shards", *words],
            env=environment | CREDENTIALS,
            text=True,
            check=False,
            **({"capture_output": True} | options),
        )

    return run


def test_a_job_is_followed_over_a_silence_to_its_end(gateway: Gateway, shards) -> None:
    gateway.stations = [
        {"state": "running", "done": 1, "total": 2},
        503,
        502,
        {"state": "done", "result": outcome("done", "done")},
    ]
    done = shards("migrate", "--canary", "1", "--json", "--yes")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"head": "0002", "shards": [shard(0, "done"), shard(1, "done")]}
    assert gateway.orders == [{"canary": 1}]


@pytest.mark.parametrize("state", ["failed", "drifted", "skipped"])
def test_one_that_is_not_done_is_no_success(gateway: Gateway, shards, state: str) -> None:
    gateway.stations = [{"state": "done", "result": outcome("done", state)}]
    done = shards("migrate", "--json")
    assert done.returncode == 1
    assert [row["state"] for row in json.loads(done.stdout)["shards"]] == ["done", state]
    assert f"1 done, 1 {state}." in done.stderr


def test_a_stop_after_the_first_ones_is_said(gateway: Gateway, shards) -> None:
    gateway.stations = [{"state": "done", "result": outcome("failed", "skipped", stopped=True)}]
    done = shards("migrate", "--canary", "1")
    assert done.returncode == 1
    assert "One of the first 1 did not succeed: the rest was left alone." in done.stderr
    assert "shard_1" in done.stdout


def test_a_job_that_failed_is_told(gateway: Gateway, shards) -> None:
    gateway.stations = [{"state": "failed", "error": "It failed unexpectedly: TypeError."}]
    done = shards("migrate", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Job j1 failed. It failed unexpectedly: TypeError.\n"


def test_an_endless_silence_ends_the_command(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_PATIENCE_S", 0.5)
    gateway.stations = [503]
    admin = Admin(gateway.url, *CREDENTIALS.values())
    with pytest.raises(CommandFailedError, match="Job j1 goes on; repeat the command to follow it"):
        operations.migrate_shards(admin, 0, tell=lambda *_: None)


def test_status_follows_the_pages(gateway: Gateway, shards) -> None:
    gateway.shards = [shard(number, "current") for number in range(5)]
    done = shards("status", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"head": "0002", "shards": gateway.shards}


@pytest.mark.parametrize("state", ["behind", "ahead", "drifted", "fenced", "unreachable"])
def test_one_that_is_not_current_is_no_success(gateway: Gateway, shards, state: str) -> None:
    gateway.shards = [shard(0, "current"), shard(1, state), shard(2, "current")]
    done = shards("status")
    assert done.returncode == 1
    assert done.stderr == f"{', '.join(sorted(['2 current', f'1 {state}'], key=lambda told: told[2:]))}.\n"
    assert "Newest revision: 0002" in done.stdout


def test_a_terminal_shows_progress_and_the_output_stays_clean(gateway: Gateway, shards) -> None:
    running = {"state": "running", "total": 8}
    gateway.stations = [*(running | {"done": n} for n in (2, 4, 6)), {"state": "done", "result": outcome("done")}]
    terminal, other_end = pty.openpty()
    done = shards("migrate", "--json", capture_output=False, stdout=subprocess.PIPE, stderr=other_end)
    os.close(other_end)
    shown = b""
    with os.fdopen(terminal, "rb") as screen:
        while part := _read(screen):
            shown += part
    assert done.returncode == 0
    assert json.loads(done.stdout)["head"] == "0002"
    assert b"Migrating shards" in shown
    assert b"%" in shown


def _read(screen: Any) -> bytes:
    try:
        return os.read(screen.fileno(), 4096)
    except OSError:  # how Linux says that the other end is closed
        return b""
