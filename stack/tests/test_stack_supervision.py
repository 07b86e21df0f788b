"""A child that dies comes back, a child that is stopped is gone with all it started."""

import asyncio
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gowebbo_stack.home import started_at
from gowebbo_stack.launching import Identity, Launch, works
from gowebbo_stack.supervision import Child, NotStartedError, Program, Reaper, run, stop_all


def python(code, **launch):
    return Launch([sys.executable, "-c", code], {"PATH": os.defpath}, **launch)


class Said(list):
    def __call__(self, line):
        self.append(line)


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 -- what is waited for tells nobody
            await asyncio.sleep(0.01)


def supervised(scenario, launch, **program):
    """Run a scenario with one child."""

    async def body():
        said = Said()
        with Reaper() as reaper:
            child = Child(Program("toy", launch, **program), reaper, on_change=lambda: None, announce=said)
            child.start()
            try:
                await scenario(child, said)
            finally:
                await child.stop()
            assert child.pid is None

    asyncio.run(body())


def test_a_killed_child_comes_back_and_the_stack_says_so():
    async def scenario(child, said):
        first = child.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: child.pid not in {None, first})
        assert said == ["toy was killed by SIGKILL, starting it again in 0.1 s"]

    supervised(scenario, python("import time; time.sleep(60)"))


def test_a_child_that_keeps_dying_is_started_at_growing_intervals():
    async def scenario(child, said):
        await until(lambda: child.deaths >= 4)
        assert [line.rpartition(" in ")[2] for line in said[:4]] == ["0.1 s", "0.2 s", "0.3 s", "0.3 s"]
        assert said[0].startswith("toy ended with status 3")

    supervised(scenario, python("raise SystemExit(3)"), longest_delay_s=0.3)


def test_a_child_that_refuses_its_settings_is_known_as_such():
    async def scenario(child, _said):
        await until(lambda: child.refused_settings)

    supervised(scenario, python("raise SystemExit(78)"))


def test_a_child_that_ignores_its_signal_is_killed_with_what_it_started(tmp_path):
    file = tmp_path / "grandchild"
    code = (
        "import signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(file)!r}, 'w').write(str(subprocess.Popen(['sleep', '60']).pid))\n"
        "time.sleep(60)\n"
    )

    async def scenario(child, said):
        await until(lambda: file.exists() and file.read_text())
        await child.stop()
        assert said == ["toy did not stop within 0 s and is killed"]
        await until(lambda: started_at(int(file.read_text())) is None)

    supervised(scenario, python(code), stop_timeout_s=0.2)


_STUBBORN = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGQUIT, lambda *_: (pathlib.Path({file!r}).write_text("at once"), sys.exit()))
print("armed", flush=True)
time.sleep(60)
"""


def test_a_child_that_can_end_at_once_is_told_to_before_it_is_killed(tmp_path):
    """So that it takes its own children along."""
    file, log = tmp_path / "file", tmp_path / "log"

    async def scenario(child, said):
        await until(lambda: log.exists() and log.read_text())
        await child.stop(left_s=0.2)
        assert file.read_text() == "at once"
        assert said == ["toy did not stop within 0 s and is ended at once: it will recover when it starts again"]

    launch = python(_STUBBORN.format(file=str(file)), log=log)
    supervised(scenario, launch, stop_timeout_s=math.inf, crash_signal=signal.SIGQUIT)


def test_a_child_that_does_not_even_end_at_once_is_killed(tmp_path):
    log = tmp_path / "log"

    async def scenario(child, _said):
        await until(lambda: log.exists() and log.read_text())
        await child.stop(left_s=0.2)
        assert child.pid is None

    launch = python(_STUBBORN.format(file="/nowhere/file"), log=log)
    supervised(scenario, launch, stop_timeout_s=math.inf, crash_signal=signal.SIGTERM)


class Stopping:
    """A child that takes its time to stop."""

    def __init__(self, stop_rank, takes_s=0.0):
        self.program = Program("toy", python(""), stop_rank=stop_rank)
        self.left_s = None
        self._takes_s = takes_s

    async def stop(self, left_s):
        self.left_s = left_s
        await asyncio.sleep(self._takes_s)


def test_what_the_first_leave_of_the_time_is_the_last_ones():
    first, second, last = Stopping(1, takes_s=0.2), Stopping(2, takes_s=0.3), Stopping(5)
    asyncio.run(stop_all([last, first, second], timeout_s=10))
    assert second.left_s < first.left_s <= 10
    assert second.left_s <= first.left_s - 0.2
    assert 0 < last.left_s <= second.left_s - 0.3


def test_those_that_stop_after_the_time_is_over_have_none():
    first, last = Stopping(1, takes_s=0.2), Stopping(5)
    asyncio.run(stop_all([last, first], timeout_s=0.1))
    assert last.left_s == 0


def test_a_child_that_is_stopped_does_not_come_back():
    async def scenario(child, said):
        await child.stop()
        assert said == []

    supervised(scenario, python("import time; time.sleep(60)"))


def test_a_step_that_takes_too_long_is_killed():
    async def body():
        with Reaper() as reaper, pytest.raises(NotStartedError, match="slow did not finish"):
            await run("slow", python("import time; time.sleep(60)"), reaper, timeout_s=0.2)

    asyncio.run(body())


def test_a_program_that_is_not_there_is_named():
    async def body():
        with Reaper() as reaper, pytest.raises(NotStartedError, match="ghost can't be started"):
            await run("ghost", Launch(["/nonexistent"], {}), reaper, timeout_s=5)

    asyncio.run(body())


@pytest.mark.parametrize("identity", [one for one in Identity if one is Identity.CURRENT or works(one)])
def test_a_child_ends_with_its_parent_even_when_that_is_killed(tmp_path, identity):
    """The kernel's parent-death signal: nothing else works after SIGKILL."""
    file = tmp_path / "child"
    code = (
        "import time\nfrom gowebbo_stack.launching import *\n"
        f"child = start(Launch(['/bin/sleep', '60'], {{}}, identity={identity}))\n"
        f"open({str(file)!r}, 'w').write(str(child.pid))\ntime.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 30
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child = int(file.read_text())
    assert Path(f"/proc/{child}/cmdline").read_bytes() == b"/bin/sleep\x0060\x00"
    parent.kill()
    parent.wait()
    while started_at(child) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
