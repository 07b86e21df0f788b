"""`make bench-growth`: what more practices and more patients cost. Writes bench/growth.md and bench/growth.svg."""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from urllib.parse import quote

import load
import machine
import processes
import wrk
from growth_report import KINDS, Growth, Sizes, Step, plotted, rendered
from measured import Measured, median_of
from practices import LIST_20, PATIENTS, PATIENTS_EACH, Practice, fill, make, some_patients
from rounds import Case, alternate
from run import SERVICES_CONNECTIONS, SETTINGS
from stand import Stand, running_stack, temporary_home

REPORT, PLOT = (Path(__file__).with_name(f"growth.{kind}") for kind in ("md", "svg"))
FIRST_CALLS = 200
"""By one client, one after the other."""
DEFAULT_CONNECTIONS = 1000


def main() -> None:
    """Measures and writes."""
    options = _options()
    wrk.require()
    growth = Growth(machine.described(), options.rounds, options.seconds)
    growth.choices = processes.compared(rounds=options.rounds, seconds=options.seconds)
    _save(growth)
    with temporary_home() as home:
        _grow(home, growth, sorted(options.practices))
    with temporary_home() as home, running_stack(home, **SETTINGS) as stand:
        growth.sizes = _patients(stand, growth, options.patients)
    _save(growth)
    sys.stdout.write(REPORT.read_text())


def _save(growth: Growth) -> None:
    """Writes what is measured so far: what breaks later takes none of it along."""
    REPORT.write_text(rendered(growth))
    if growth.steps:
        PLOT.write_text(plotted(growth))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--practices", type=int, nargs="+", default=[1, 100, 1000, 2000], help="(1 100 1000 2000)")
    parser.add_argument("--patients", type=int, nargs="+", default=[100, 10_000, 1_000_000], help="in one practice")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each row (3)")
    parser.add_argument("--seconds", type=float, default=4, help="length of a row in a round (4)")
    return parser.parse_args()


def _grow(home: Path, growth: Growth, counts: list[int]) -> None:
    """The same stack with ever more practices; at last again with fewer connections than practices."""
    everyone: list[Practice] = []
    enough = max(DEFAULT_CONNECTIONS, counts[-1] + SERVICES_CONNECTIONS)
    with running_stack(home, EMBEDDED_MAX_CONNECTIONS=enough, **SETTINGS) as stand:
        for count in counts:
            new = make(stand, "practice", count - len(everyone), patients=PATIENTS_EACH, start=len(everyone))
            everyone += new
            growth.steps.append(_step(stand, growth, everyone, new, enough))
            growth.practice_disk_mb = _disk_mb(stand, everyone[0])
            _save(growth)
        stopping = time.perf_counter()
    growth.stopped_s = time.perf_counter() - stopping
    _save(growth)
    if counts[-1] > DEFAULT_CONNECTIONS:
        with running_stack(home, EMBEDDED_MAX_CONNECTIONS=DEFAULT_CONNECTIONS, **SETTINGS) as stand:
            growth.again_ready_s = stand.ready_s
            growth.steps.append(_step(stand, growth, everyone, everyone, DEFAULT_CONNECTIONS))
            _save(growth)


def _disk_mb(stand: Stand, practice: Practice) -> float:
    with stand.sql(practice.database) as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        return float(cursor.fetchone()[0]) / 1e6


def _step(stand: Stand, growth: Growth, everyone: list[Practice], new: list[Practice], allowed: int) -> Step:
    firsts = [practice.get(LIST_20) for practice in new]
    stand.wait_idle()
    cold = load.run_all(stand.port, firsts[:FIRST_CALLS], clients=1)
    warm = load.run_all(stand.port, firsts[:FIRST_CALLS], clients=1)
    opened = load.run_all(stand.port, firsts[FIRST_CALLS:], clients=wrk.CLIENTS) if firsts[FIRST_CALLS:] else None
    asked = [practice.get(LIST_20) for practice in everyone]
    cases: dict[str, Case] = {
        name: partial(wrk.run, stand.port, asked, order=order(len(asked)), seconds=growth.seconds)
        for name, order in (("uniform", wrk.uniform), ("skewed", wrk.skewed))
    }
    found = {name: median_of(rounds) for name, rounds in alternate(stand, cases, growth.rounds).items()}
    return Step(
        len(everyone),
        allowed,
        cold,
        warm,
        opened,
        found["uniform"],
        found["skewed"],
        stand.connections(),
        stand.memory_mb(),
        stand.busy_at_rest(),
    )


def _patients(stand: Stand, growth: Growth, sizes: list[int]) -> Sizes:
    practices = make(stand, "size", len(sizes), patients=0)
    cases: dict[str, Case] = {}
    for size, practice in zip(sizes, practices, strict=True):
        fill(stand, practice, size)
        reads = [practice.get(f"{PATIENTS}/{one}") for one in some_patients(stand, practice, 1000)]
        asked = ([practice.get(LIST_20)], [practice.get(_late_page(stand, practice, size))], reads, [practice.insert()])
        for kind, requests in zip(KINDS, asked, strict=True):
            cases[f"{kind} {size}"] = partial(wrk.run, stand.port, requests, seconds=growth.seconds)
    found: dict[str, Measured] = {
        name: median_of(rounds) for name, rounds in alternate(stand, cases, growth.rounds).items()
    }
    return {size: {kind: found[f"{kind} {size}"] for kind in KINDS} for size in sizes}


def _late_page(stand: Stand, practice: Practice, size: int) -> str:
    """The path of a list of 20 behind nine tenths of all patients, as a client that pages would ask for it."""
    limit = min(1000, size // 10)
    path, cursor = f"{PATIENTS}?limit={limit}", ""
    for _ in range(size * 9 // 10 // limit):
        ((_, body),) = load.ask_all(stand.port, [practice.get(f"{path}{cursor}")], clients=1)
        cursor = f"&cursor={quote(json.loads(body)['result']['next_cursor'])}"
    return f"{LIST_20}{cursor}"


if __name__ == "__main__":
    main()
