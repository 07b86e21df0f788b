"""A stack with toys in the services' places: everything else is real."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gowebbo_stack.ports import free_port

DEADLINE_S = 60

_TOY = """
import http.server, json, os, signal, socket, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"pid": os.getpid(), "environment": dict(os.environ)}).encode())

    def address_string(self):
        return "client"

    def log_message(self, *_):
        pass

def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if "SERVICE_FD" not in os.environ:
        signal.pause()
    if "METRICS_FD" in os.environ:
        threading.Thread(target=serve, args=["METRICS_FD"], daemon=True).start()
    serve("SERVICE_FD")

def serve(name):
    server = http.server.HTTPServer(("", 0), Handler, bind_and_activate=False)
    server.socket = socket.socket(fileno=int(os.environ[name]))
    server.serve_forever()
"""
_PACKAGES = ("gateway", "auth_service", "tenant_service", "patient_service", "notifier")


@pytest.fixture
def toys(tmp_path):
    """Return a folder with a toy package for each service; a test may put other words into them."""
    folder = tmp_path / "toys"
    folder.mkdir()
    (folder / "toy.py").write_text(_TOY)
    for name in _PACKAGES:
        package = folder / name
        package.mkdir()
        for module, text in {"__init__": "", "__main__": "import toy; toy.main()", "cli": "", "worker": ""}.items():
            (package / f"{module}.py").write_text(text or ("import toy; toy.main()" if module == "worker" else ""))
    return folder


class RunningUp:
    """A `gowebbo up` and what a person at the terminal can do with it."""

    def __init__(self, home: Path, toys: Path, *, piped: bool, **environment: str) -> None:
        self.home = home
        self.port = free_port()
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(toys),
            "GOWEBBO_HOME": str(home),
            "PORT": str(self.port),
        } | environment
        self.output = home.with_name(f"{home.name}.output")
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gowebbo_stack", "up"],
                env=self.environment,
                stdout=subprocess.PIPE if piped else output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        return self.output.read_text()

    def ready(self) -> "RunningUp":
        wait_until(lambda: "GoWebbo is ready" in self.text() or self.process.poll() is not None)
        assert self.process.poll() is None, self.text()
        return self

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "gowebbo_stack", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def status(self) -> dict:
        return json.loads(self.command("status", "--json").stdout)

    def pids(self) -> list[int]:
        return [process["pid"] for process in json.loads((self.home / "state.json").read_text())["processes"]]

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)


def wait_until(condition, deadline_s: float = DEADLINE_S):
    """Wait with a deadline; return what the condition returned."""
    deadline = time.monotonic() + deadline_s
    while not (result := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return result


@pytest.fixture
def eventually():
    return wait_until


@pytest.fixture
def run_up(tmp_path, toys):
    """Return a function that starts `gowebbo up`; all are stopped at the end of the test."""
    running = []

    def start(home: str = "home", *, piped: bool = False, **environment: str) -> RunningUp:
        running.append(RunningUp(tmp_path / home, toys, piped=piped, **environment))
        return running[-1]

    yield start
    for up in running:
        up.end()
