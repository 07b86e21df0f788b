"""The accounts of the processors' time: parts that add up."""

import itertools
import os
import subprocess
import sys

import pytest
from rounds import busy_s
from stand import Stand

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def test_the_machine_is_busy_with_everything_but_waiting():
    """Interrupts are part of it, a guest's time is in `user` already."""
    #        user nice system idle iowait irq softirq steal guest guest_nice
    first = "cpu  1000 200 30 40000 5000 6 700 80 900 10"

    assert busy_s(f"{first}\ncpu0 1 1 1 1 1 1 1 1 1 1\n") == pytest.approx((1000 + 200 + 30 + 6 + 700 + 80) * TICK_S)


def test_what_an_ended_child_has_used_stays_in_its_parents_account(tmp_path):
    """Else a backend of PostgreSQL's that ends would take its time along, and the next sum were less than the last."""
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print(flush=True); input()"
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stand = Stand(0, tmp_path, os.getpid(), {"part": {"pid": parent.pid}}, 0.0)
    assert parent.stdout
    parent.stdout.readline()
    assert stand.cpu_s()["part"] >= 0.3
    parent.communicate(b"\n")


def test_what_is_less_than_a_tick_counts(tmp_path):
    """A thousand backends share the load: each alone may use less in a whole round."""
    code = (
        "import time\nwhile True:\n    input()\n    end = time.process_time() + 0.003\n"
        "    while time.process_time() < end: pass\n    print(flush=True)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stand = Stand(0, tmp_path, os.getpid(), {"part": {"pid": child.pid}}, 0.0)
    assert child.stdin
    assert child.stdout
    used = []
    for _ in range(4):
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        used.append(stand.cpu_s()["part"])
    child.kill()
    child.communicate()

    assert all(after - before >= 0.003 for before, after in itertools.pairwise(used))
