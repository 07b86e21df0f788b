"""The operator's commands are clients of the gateway's admin routes."""

import base64
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
PRACTICES = [
    {
        "id": f"p{n}",
        "name": f"Clinic {n}",
        "email": f"c{n}@example.com",
        "status": "active",
        "database_name": f"shard_{n}",
    }
    for n in range(3)
]
ANSWERS = {
    "/api/v1/admin/practices": PRACTICES,
    "/api/v1/admin/shards": [{"practice_id": "p0", "server": "a", "database": "shard_0", "state": "active"}],
    "/api/v1/admin/servers": [
        {"key": "a", "host": "db", "port": 5432, "state": "open", "practices": 3, "capacity": 900, "connections": 7}
    ],
}


KNOWN, CLOSING, UNKNOWN = (f"0199aaaa-0000-7000-8000-00000000000{n}" for n in range(3))
posted: list[str] = []


class Gateway(http.server.BaseHTTPRequestHandler):
    """Two items on a page, so that following the cursor is needed."""

    def do_GET(self):
        address = urlsplit(self.path)
        if not self.is_admin():
            return self.send(401, {"message": "Wrong credentials."})
        if address.path not in ANSWERS:
            return self.send(404, {"message": "Nothing here."})
        start = int(parse_qs(address.query).get("cursor", ["0"])[0])
        page = {"data": ANSWERS[address.path][start : start + 2]}
        if start + 2 < len(ANSWERS[address.path]):
            page["next_cursor"] = str(start + 2)
        return self.send(200, {"success": True, "result": page})

    def do_POST(self):
        if not self.is_admin():
            return self.send(401, {"message": "Wrong credentials."})
        posted.append(self.path)
        practice_id, deed = self.path.removeprefix("/api/v1/admin/practices/").split("/")
        if practice_id == UNKNOWN:
            return self.send(404, {"message": "There is no such practice.", "detail": "There is no such practice."})
        if practice_id == CLOSING:
            refusal = {
                "message": "This practice is neither active nor suspended.",
                "detail": "This practice is closing.",
            }
            return self.send(409, refusal)
        status = {"suspend": "suspended", "resume": "active"}[deed]
        result = {"id": practice_id, "name": "Clinic", "email": "c@example.com", "status": status}
        return self.send(200, {"success": True, "result": result})

    def is_admin(self):
        expected = base64.b64encode(":".join(CREDENTIALS.values()).encode()).decode()
        return self.headers["Authorization"] == f"Basic {expected}"

    def send(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    posted.clear()
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


def test_practices_are_listed_with_their_places_over_all_pages(tmp_path, url):
    answer = gowebbo(tmp_path, "practices", "list", "--json", "--yes", GOWEBBO_URL=url, **CREDENTIALS)
    assert answer.returncode == 0, answer.stderr
    rows = json.loads(answer.stdout)
    assert [set(row) for row in rows] == [{"id", "name", "email", "status", "server", "database"}] * 3
    assert rows[0]["server"] == "a"
    assert rows[2] == {
        "id": "p2",
        "name": "Clinic 2",
        "email": "c2@example.com",
        "status": "active",
        "server": None,
        "database": "shard_2",
    }


def test_servers_are_listed(tmp_path, url):
    answer = gowebbo(tmp_path, "servers", "list", "--json", "--url", url, **CREDENTIALS)
    assert json.loads(answer.stdout) == ANSWERS["/api/v1/admin/servers"]
    table = gowebbo(tmp_path, "servers", "list", "--url", url, **CREDENTIALS).stdout
    assert "capacity" in table
    assert "900" in table


def test_a_piped_table_cuts_nothing_off(tmp_path, url):
    table = gowebbo(tmp_path, "practices", "list", "--url", url, **CREDENTIALS).stdout
    assert "c2@example.com" in table
    assert "shard_2" in table


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (CREDENTIALS | {"ADMIN_PASSWORD": "another-password"}, "401: Wrong credentials."),
        ({}, "Set ADMIN_USER_NAME"),
    ],
)
def test_failures_are_told_and_have_an_exit_code(tmp_path, url, environment, words):
    answer = gowebbo(tmp_path, "practices", "list", "--json", GOWEBBO_URL=url, **environment)
    assert answer.returncode == 1
    assert words in answer.stderr
    assert answer.stdout == ""


def test_without_a_gateway_the_command_says_how_to_name_one(tmp_path):
    answer = gowebbo(tmp_path, "servers", "list", **CREDENTIALS)
    assert answer.returncode == 1
    assert "--url" in answer.stderr
    unreachable = gowebbo(tmp_path, "servers", "list", "--url", "http://127.0.0.1:1", **CREDENTIALS)
    assert unreachable.returncode == 1
    assert "can't be asked" in unreachable.stderr


STATUSES = {"suspend": "suspended", "resume": "active"}


def suspend_at_a_terminal(tmp_path, url, *words, answer=""):
    """The command's exit code and all that it showed to somebody who sits there and types the answer."""
    here, there = pty.openpty()
    try:
        os.write(here, answer.encode())
        done = subprocess.run(
            [sys.executable, "-m", "gowebbo_stack", "practices", "suspend", KNOWN, *words],
            env={"PATH": os.environ["PATH"], "GOWEBBO_HOME": str(tmp_path), "GOWEBBO_URL": url, **CREDENTIALS},
            stdin=there,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        os.close(there)
        os.close(here)
    return done


@pytest.mark.parametrize(("deed", "status"), STATUSES.items())
def test_a_practice_is_suspended_and_resumed(tmp_path, url, deed, status):
    """Nobody is asked where no terminal is: a script means it."""
    answer = gowebbo(tmp_path, "practices", deed, KNOWN, "--json", GOWEBBO_URL=url, **CREDENTIALS)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == {"practice": KNOWN, "status": status}
    assert posted == [f"/api/v1/admin/practices/{KNOWN}/{deed}"]
    table = gowebbo(tmp_path, "practices", deed, KNOWN, "--url", url, "--yes", **CREDENTIALS)
    assert table.returncode == 0
    assert KNOWN in table.stdout
    assert status in table.stdout


def test_suspending_asks_on_a_terminal_and_does_nothing_without_a_yes(tmp_path, url):
    for answer in ("n\n", "\n"):
        declined = suspend_at_a_terminal(tmp_path, url, "--json", answer=answer)
        assert declined.returncode == 1
        assert KNOWN in declined.stderr
        assert declined.stdout == ""
    assert posted == []
    agreed = suspend_at_a_terminal(tmp_path, url, "--json", answer="y\n")
    assert agreed.returncode == 0, agreed.stderr
    assert json.loads(agreed.stdout) == {"practice": KNOWN, "status": "suspended"}


def test_yes_answers_the_question_on_a_terminal(tmp_path, url):
    done = suspend_at_a_terminal(tmp_path, url, "--yes")
    assert done.returncode == 0
    assert "?" not in done.stderr + done.stdout
    assert len(posted) == 1


@pytest.mark.parametrize("deed", STATUSES)
@pytest.mark.parametrize(
    ("practice_id", "words"),
    [(UNKNOWN, "404: There is no such practice."), (CLOSING, "409: This practice is closing.")],
)
def test_a_refusal_is_told_in_the_gateways_words(tmp_path, url, deed, practice_id, words):
    answer = gowebbo(tmp_path, "practices", deed, practice_id, "--json", GOWEBBO_URL=url, **CREDENTIALS)
    assert answer.returncode == 1
    assert words in answer.stderr
    assert answer.stdout == ""


@pytest.mark.parametrize("deed", STATUSES)
@pytest.mark.parametrize("written", ["", "Sunrise Clinic", "../admin", KNOWN[:-1]])
def test_only_an_id_names_a_practice(tmp_path, url, deed, written):
    answer = gowebbo(tmp_path, "practices", deed, written, "--yes", GOWEBBO_URL=url, **CREDENTIALS)
    assert answer.returncode != 0
    assert "valid UUID" in answer.stderr
    assert posted == []
