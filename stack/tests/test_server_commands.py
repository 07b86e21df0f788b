"""`servers …` and `practices verify-isolation`: what they ask of the gateway, show, and end with."""

import http.server
import json
import os
import pty
import subprocess
import sys
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

CREDENTIALS = {"ADMIN_USER_NAME": "root", "ADMIN_PASSWORD": "a-good-password"}
SERVERS = [{"key": "a", "host": "db", "port": 5432, "state": "open", "practices": 3, "capacity": 900, "connections": 7}]
RIGHT = {"name": "public", "ok": True, "detail": "none"}
WRONG = {"name": "stamps", "ok": False, "detail": "settings: none"}
P0, P1, P2 = (f"0199aaaa-0000-7000-8000-00000000000{n}" for n in range(3))
ISOLATION = [{"id": P0, "checks": [RIGHT]}, {"id": P1, "checks": [RIGHT, WRONG]}, {"id": P2, "checks": [RIGHT]}]
UNSUITABLE = {
    "message": "This server can't hold shards as it is.",
    "detail": "Server c was not added.",
    "errors": [
        {"field": "rights", "message": "its admin role lacks CREATEDB."},
        {"field": "public", "message": "PUBLIC …"},
    ],
}
DONE: list[tuple[str, str, object]] = []
"""What the gateway was asked to do: method, path, body."""


class Gateway(http.server.BaseHTTPRequestHandler):
    """Believes everybody. Two practices on a page of the report."""

    def do_GET(self):
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        if address.path.endswith("/servers"):
            return self.send(200, {"result": {"data": SERVERS}})
        if "practice_id" in query:
            found = [one for one in ISOLATION if one["id"] == query["practice_id"][0]]
            return self.send(200, {"result": {"data": found, "total": 1}})
        start = int(query.get("cursor", ["0"])[0])
        page = {"data": ISOLATION[start : start + 2], "total": len(ISOLATION)}
        return self.send(200, {"result": page | ({"next_cursor": "2"} if start == 0 else {})})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        DONE.append((self.command, self.path, body))
        if body and body["key"] == "c":
            return self.send(422, UNSUITABLE)
        if "nosuch" in self.path:
            return self.send(404, {"message": "There is no such server.", "detail": "There is no such server."})
        return self.send(200, {"result": {}})

    do_DELETE = do_POST  # noqa: N815 - the base class asks for it

    def send(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def url():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def gowebbo(tmp_path, *words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "gowebbo_stack", *words],
        env={"PATH": os.environ["PATH"], "GOWEBBO_HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_server_is_added_and_all_are_shown(tmp_path, url):
    DONE.clear()
    words = (
        "--host",
        "db-b",
        "--port",
        "6432",
        "--sslmode",
        "verify-full",
        "--sslrootcert",
        "/ca.pem",
        "--capacity",
        "9",
    )
    answer = gowebbo(tmp_path, "servers", "add", "b", *words, "--json", "--yes", "--url", url, **CREDENTIALS)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert json.loads(answer.stdout) == SERVERS
    assert gowebbo(tmp_path, "servers", "add", "b", "--host", "db-b", "--url", url, **CREDENTIALS).returncode == 0
    path = "/api/v1/admin/servers"
    tls = {"sslmode": "verify-full", "sslrootcert": "/ca.pem"}
    assert [
        ("POST", path, {"key": "b", "host": "db-b", "port": 6432, "capacity": 9, **tls}),
        ("POST", path, {"key": "b", "host": "db-b", "port": 5432}),
    ] == DONE


def test_every_fault_of_a_server_is_shown(tmp_path, url):
    answer = gowebbo(tmp_path, "servers", "add", "c", "--host", "db-c", "--json", "--url", url, **CREDENTIALS)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.splitlines() == [
        "The gateway answered 422: Server c was not added.",
        "  rights: its admin role lacks CREATEDB.",
        "  public: PUBLIC …",
    ]


@pytest.mark.parametrize(
    ("command", "call"),
    [("drain --keep", ("POST", "/b/drain")), ("open", ("POST", "/b/open")), ("remove", ("DELETE", "/b"))],
)
def test_a_server_is_drained_opened_and_removed(tmp_path, url, command, call):
    DONE.clear()
    answer = gowebbo(tmp_path, "servers", *command.split(), "b", "--json", "--url", url, **CREDENTIALS)
    assert (answer.returncode, json.loads(answer.stdout)) == (0, SERVERS)
    assert [(method, path) for method, path, _ in DONE] == [(call[0], f"/api/v1/admin/servers{call[1]}")]
    failed = gowebbo(tmp_path, "servers", *command.split(), "nosuch", "--url", url, **CREDENTIALS)
    assert failed.returncode == 1
    assert "There is no such server." in failed.stderr


@pytest.mark.parametrize("command", ["drain --keep", "remove"])
def test_on_a_terminal_the_command_asks_first(tmp_path, url, command):
    def on_a_terminal(reply, *words):
        DONE.clear()
        parent, child = pty.openpty()
        os.write(parent, reply)
        done = subprocess.run(
            [sys.executable, "-m", "gowebbo_stack", "servers", *command.split(), "b", "--url", url, *words],
            env={"PATH": os.environ["PATH"], "GOWEBBO_HOME": str(tmp_path), **CREDENTIALS},
            stdin=child,
            capture_output=True,
            check=False,
            timeout=60,
        )
        os.close(parent)
        os.close(child)
        return done.returncode, len(DONE)

    assert on_a_terminal(b"n\n") == (1, 0)
    assert on_a_terminal(b"y\n") == (0, 1)
    assert on_a_terminal(b"", "--yes") == (0, 1)


def test_the_isolation_of_all_is_shown_and_one_fault_is_a_failure(tmp_path, url):
    answer = gowebbo(tmp_path, "practices", "verify-isolation", "--json", "--url", url, **CREDENTIALS)
    assert answer.returncode == 1
    assert json.loads(answer.stdout) == {"ok": False, "practices": ISOLATION}
    table = gowebbo(tmp_path, "practices", "verify-isolation", "--url", url, **CREDENTIALS)
    assert table.returncode == 1
    assert "stamps: settings: none" in table.stdout
    assert "public" not in table.stdout
    one = gowebbo(tmp_path, "practices", "verify-isolation", P2, "--json", "--yes", "--url", url, **CREDENTIALS)
    assert (one.returncode, one.stderr) == (0, "")
    assert json.loads(one.stdout) == {"ok": True, "practices": [ISOLATION[2]]}
