"""Rounds: all cases of a group in turn, again and again, so that subject and limit meet the same moments."""

import os
import resource
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from measured import Measured
from stand import Stand

LOAD = "load"
"""What sends the requests, as a part beside the stack's."""
OTHERS = "others"
"""Every other process of the machine, and what the host takes from it."""

Case = Callable[[], Measured]
Rounds = dict[str, list[Measured]]


def alternate(stand: Stand, cases: Mapping[str, Case], rounds: int) -> Rounds:
    """Runs every case so many times, one after the other."""
    found: Rounds = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            found[name].append(observed(stand, case))
    return found


def observed(stand: Stand, case: Case) -> Measured:
    """Runs a case against a stack at rest, and sees what each part uses of the processors meanwhile."""
    stand.wait_idle()
    before = _cpu_s(stand)
    measured = case()
    return replace(measured, cpu_s={part: after_s - before[part] for part, after_s in _cpu_s(stand).items()})


def taken_by_others(runs: Iterable[Measured]) -> float:
    """The share of those who had no part in it, of all that was used: where it is large, rates are too low."""
    used = [one.cpu_s for one in runs]
    return sum(one.get(OTHERS, 0.0) for one in used) / sum(sum(one.values()) for one in used)


def _cpu_s(stand: Stand) -> dict[str, float]:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    parts = {**stand.cpu_s(), LOAD: sum(one.ru_utime + one.ru_stime for one in used)}
    return {**parts, OTHERS: _machine_cpu_s() - sum(parts.values())}


def _machine_cpu_s() -> float:
    return busy_s(Path("/proc/stat").read_text())


def busy_s(proc_stat: str) -> float:
    """What all processes and the host have used since the machine started, of the text of /proc/stat; proc_stat(5).

    With interrupts: delivery over the loopback interface is one (softirq), and stands in the time of the process that
    sent as well.
    """
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, proc_stat.splitlines()[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
