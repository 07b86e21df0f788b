"""A program that was forked is as one that was started: its surroundings, its parent, its end. And without a server."""

import asyncio
import collections
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gowebbo_stack import forking
from gowebbo_stack.forking import ForkedProcess, ForkServer
from gowebbo_stack.forkserver import MODULES
from gowebbo_stack.home import started_at
from gowebbo_stack.launching import Launch

_TOY = """
import json, os, random, secrets, signal, sys, uuid_utils
if sys.argv[1:] == ["wait"]:
    signal.pause()
if sys.argv[1:] == ["fail"]:
    raise SystemExit(78)
print(json.dumps({
    "name": __name__,
    "words": sys.argv,
    "environment": dict(os.environ),
    "directory": os.getcwd(),
    "parent": os.getppid(),
    "own session": os.getsid(0) == os.getpid() == os.getpgid(0),
    "said": [os.read(int(number), 100).decode() for number in os.environ.get("DESCRIPTORS", "").split()],
    "descriptors": [int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")],
    "input": os.readlink("/proc/self/fd/0"),
    "chance": [uuid_utils.uuid7().hex[16:], random.random(), secrets.token_hex(8)],
    "libraries": "fastapi" in sys.modules,
}))
sys.stderr.write("the end\\n")
"""


@pytest.fixture
def toy_folder(tmp_path):
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "toy.py").write_text(_TOY)
    return folder


@pytest.fixture
def forkserver_log(tmp_path):
    return tmp_path / "forkserver.log"


@pytest.fixture
def server(toy_folder, forkserver_log):
    server = ForkServer()
    server.open({"PATH": os.defpath, "PYTHONPATH": str(toy_folder)}, forkserver_log)
    asyncio.run(server.imported())
    yield server
    server.close()


@pytest.fixture
def launch(tmp_path, toy_folder):
    """Return a function that makes the toy's launch."""

    def toy(*words: str, descriptors: tuple[int, ...] = (), **environment: str) -> Launch:
        return Launch(
            [sys.executable, "-m", "toy", *words],
            {"PYTHONPATH": str(toy_folder), **environment},
            log=tmp_path / "toy.log",
            working_directory=tmp_path,
            descriptors=descriptors,
        )

    return toy


def told(launch, process, eventually):
    """Return what the toy printed, when it has ended."""
    eventually(lambda: process.poll() is not None)
    text = launch.log.read_text()
    assert process.poll() == 0, text
    *_, last = (line for line in text.splitlines() if line.startswith("{"))
    assert "the end" in text, "standard error"
    return json.loads(last)


def test_a_forked_program_finds_what_a_started_one_finds(server, launch, tmp_path, eventually):
    pipes = [os.pipe() for _ in range(3)]
    for number, (_, write) in enumerate(pipes):
        os.write(write, b"%d" % number)
    reads = tuple(read for read, _ in pipes)
    toy = launch("two", "words", descriptors=reads, DESCRIPTORS=" ".join(map(str, reads)), SECRET="s3")
    process = server.start(toy)
    assert isinstance(process, ForkedProcess)
    found = told(toy, process, eventually)
    assert found["name"] == "__main__"
    assert found["words"] == [str(tmp_path / "modules" / "toy.py"), "two", "words"]
    assert found["environment"] == dict(toy.environment)
    assert found["directory"] == str(tmp_path)
    assert found["parent"] == os.getpid()
    assert found["own session"]
    assert found["said"] == ["0", "1", "2"]
    assert sorted(found["descriptors"]) == sorted([0, 1, 2, *reads])
    assert found["input"] == "/dev/null"
    assert found["libraries"], "nothing was gained"
    for pipe in pipes:
        for one in pipe:
            os.close(one)


def test_forked_programs_have_chances_of_their_own(server, launch, eventually):
    """A generator that was seeded before the fork would give both the same ids and secrets."""
    toy = launch()
    first, second = (told(toy, server.start(toy), eventually)["chance"] for _ in range(2))
    assert not set(first) & set(second)


def test_exit_codes_and_signals_arrive(server, launch, eventually):
    failing, waiting = server.start(launch("fail")), server.start(launch("wait"))
    eventually(lambda: failing.poll() is not None)
    assert failing.poll() == 78
    assert waiting.poll() is None
    waiting.send_signal(signal.SIGKILL)
    eventually(lambda: waiting.poll() is not None)
    assert waiting.poll() == -signal.SIGKILL


def test_a_forked_program_is_shown_by_its_own_name(server, launch, eventually):
    waiting = server.start(launch("wait"))
    folder = Path(f"/proc/{waiting.pid}")
    assert isinstance(waiting, ForkedProcess)
    eventually(lambda: (folder / "cmdline").read_text().split("\0")[:4] == [sys.executable, "-m", "toy", "wait"])
    assert "forkserver" not in (folder / "cmdline").read_text()
    assert (folder / "comm").read_text() == "toy\n"
    waiting.send_signal(signal.SIGKILL)
    eventually(lambda: waiting.poll() is not None)


_LATE = """
import os, pathlib, time
depth = 0
def forked():
    global depth
    depth += 1
    if depth == 2:
        pathlib.Path(__file__).with_name('late').write_text(str(os.getpid()))
        time.sleep(1)
os.register_at_fork(after_in_child=forked)
"""


def test_a_forked_program_that_comes_too_late_leaves_no_zombie(
    toy_folder, forkserver_log, launch, eventually, monkeypatch
):
    (toy_folder / "bcrypt.py").write_text(_LATE)
    monkeypatch.setattr(forking, "_FORK_TIMEOUT_S", 0.3)
    server = ForkServer()
    server.open({"PATH": os.defpath, "PYTHONPATH": str(toy_folder)}, forkserver_log)
    asyncio.run(server.imported())
    toy = launch()
    process = server.start(toy)
    assert isinstance(process, subprocess.Popen)
    told(toy, process, eventually)
    pid = int((toy_folder / "late").read_text())
    eventually(lambda: started_at(pid) is None)
    assert not Path(f"/proc/{pid}").exists()


def test_what_was_forked_outlives_the_fork_server_and_the_next_one_is_started(server, launch, eventually):
    waiting = server.start(launch("wait"))
    os.kill(server.pid, signal.SIGKILL)
    toy = launch()
    process = server.start(toy)
    assert isinstance(process, subprocess.Popen)
    found = told(toy, process, eventually)
    assert (found["parent"], found["libraries"]) == (os.getpid(), False)
    assert waiting.poll() is None
    waiting.send_signal(signal.SIGKILL)
    eventually(lambda: waiting.poll() is not None)


def test_without_a_library_everything_is_started_in_the_ordinary_way(toy_folder, forkserver_log, launch, eventually):
    (toy_folder / "bcrypt.py").write_text("raise ImportError('for another processor')")
    server = ForkServer()
    server.open({"PATH": os.defpath, "PYTHONPATH": str(toy_folder)}, forkserver_log)
    asyncio.run(server.imported())
    toy = launch()
    assert not told(toy, server.start(toy), eventually)["libraries"]
    assert "for another processor" in forkserver_log.read_text()


def test_the_fork_server_has_nothing_that_a_fork_could_break(server):
    """A lock held by another thread stays locked in the child; a connection would be used by two."""
    folder = Path(f"/proc/{server.pid}")
    assert len(list((folder / "task").iterdir())) == 1
    kinds = [str(file.readlink()).partition(":")[0] for file in (folder / "fd").iterdir()]
    assert kinds.count("socket") == 1, kinds
    assert len(kinds) == 4, kinds


def test_forked_programs_and_the_fork_server_end_with_a_killed_supervisor(toy_folder, tmp_path, eventually):
    file = tmp_path / "pids"
    code = (
        "import asyncio, sys, time\nfrom pathlib import Path\n"
        "from gowebbo_stack.forking import *\nfrom gowebbo_stack.launching import Launch\n"
        f"environment, server = {{'PYTHONPATH': {str(toy_folder)!r}}}, ForkServer()\n"
        f"server.open(environment, Path({str(tmp_path / 'log')!r}))\n"
        "asyncio.run(server.imported())\n"
        "child = server.start(Launch([sys.executable, '-m', 'toy', 'wait'], environment))\n"
        "assert isinstance(child, ForkedProcess)\n"
        f"Path({str(file)!r}).write_text(f'{{server.pid}} {{child.pid}}\\n')\ntime.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    eventually(lambda: parent.poll() is not None or (file.exists() and file.read_text().endswith("\n")))
    pids = [int(word) for word in file.read_text().split()]
    assert all(started_at(pid) for pid in pids)
    parent.kill()
    parent.wait()
    eventually(lambda: not any(started_at(pid) for pid in pids))


_SERVICES = (
    "gateway.__main__",
    "auth_service.__main__",
    "tenant_service.__main__",
    "patient_service.__main__",
    "notifier.__main__",
    "notifier.worker",
)


def loaded_by(*modules: str) -> set[str]:
    """The libraries that a process has after these imports."""
    lines = "".join(f"import {module}\n" for module in modules)
    code = f"import sys\nsys.modules.update(rich=None, pygments=None)\n{lines}print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in answer.stdout.split()} - sys.stdlib_module_names


def test_what_several_services_load_is_loaded_before_the_fork():
    of_each = [loaded_by(module) for module in _SERVICES]
    counts = collections.Counter(name for libraries in of_each for name in libraries)
    several = {name for name, count in counts.items() if count > 1 and name != "notifier"}
    assert several <= loaded_by(*MODULES)
    ours = {"gateway", "auth_service", "tenant_service", "patient_service", "notifier"}
    assert not loaded_by(*MODULES) & ours
