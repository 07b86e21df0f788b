"""`make bench-neighbour`: what a practice notices of another one's flood or locks. Writes bench/neighbour.md."""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

import load
import machine
import wrk
from load import OpenLoop
from practices import LIST_20, PATIENTS_EACH, Practice, make
from stand import Stand, running_stack, temporary_home
from tables import figure, table

REPORT = Path(__file__).with_name("neighbour.md")
NEIGHBOURS = 32
"""Practices that make the same load as the flood, but together: what the machine alone accounts for."""
RATE = 100.0
"""Calls a second of the practice that is watched: more than a busy clinic makes."""
LEAD_S = 1.0
"""The disturbance begins and ends so much before and after the watched calls."""


@dataclass
class Case:
    """A disturbance, and what the watched practice measured during it, round by round."""

    name: str
    disturbed: Callable[[], AbstractContextManager[None]]
    rounds: list[OpenLoop] = field(default_factory=list)


def main() -> None:
    """Measures and writes."""
    options = _options()
    wrk.require()
    with temporary_home() as home, running_stack(home, TOKEN_EXPIRE_IN="24hr") as stand:
        cases = _cases(stand, options.seconds)
        watched = make(stand, "watched", 1, patients=PATIENTS_EACH)[0]
        asked = list(chain.from_iterable([watched.get(LIST_20), watched.insert()] for _ in range(2)))
        for _ in range(options.rounds):
            for case in cases:
                stand.wait_idle()
                with case.disturbed():
                    case.rounds.append(load.open_loop(stand.port, asked, per_second=RATE, seconds=options.seconds))
    REPORT.write_text("\n".join(_rendered(cases, options.rounds, options.seconds)) + "\n")
    sys.stdout.write(REPORT.read_text())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each row (5)")
    parser.add_argument("--seconds", type=float, default=6, help="length of a row in a round (6)")
    return parser.parse_args()


def _cases(stand: Stand, seconds: float) -> list[Case]:
    loud = make(stand, "loud", 1, patients=PATIENTS_EACH)[0]
    others = make(stand, "other", NEIGHBOURS, patients=PATIENTS_EACH)
    flood = partial(_flooded, stand, seconds=seconds + 2 * LEAD_S)
    return [
        Case("nothing", nullcontext),
        Case("32 practices with a client each", partial(flood, others, clients=NEIGHBOURS)),
        Case("one practice with 32 clients", partial(flood, [loud], clients=32)),
        Case("one practice with 320 clients", partial(flood, [loud], clients=320)),
        Case("one practice whose table is locked, 32 clients", partial(_locked, stand, loud, flood)),
    ]


@contextmanager
def _flooded(stand: Stand, practices: Sequence[Practice], *, clients: int, seconds: float) -> Iterator[None]:
    """These practices ask as fast as they are answered, whatever the answer."""
    asked = [request for one in practices for request in (one.get(LIST_20), one.insert())]
    with ThreadPoolExecutor(1) as thread:
        flooding = thread.submit(wrk.run, stand.port, asked, seconds=seconds, clients=clients)
        try:
            time.sleep(LEAD_S)
            yield
        finally:
            flooding.result()


@contextmanager
def _locked(stand: Stand, practice: Practice, flood: Callable[..., AbstractContextManager[None]]) -> Iterator[None]:
    """Somebody holds the practice's table: each of its calls waits until lock_timeout ends it."""
    with stand.sql(practice.database) as cursor:
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE patients IN ACCESS EXCLUSIVE MODE")
        with flood([practice], clients=32):
            yield


def _rendered(cases: Sequence[Case], rounds: int, seconds: float) -> list[str]:
    quiet = cases[0].rounds

    def cells(case: Case) -> list[str]:
        p50_ms, p99_ms = (statistics.median(values) for values in _latencies(case.rounds))
        times = statistics.median(one.p99_ms / calm.p99_ms for one, calm in zip(case.rounds, quiet, strict=True))
        return [case.name, figure(p50_ms), figure(p99_ms), figure(times), str(sum(one.failed for one in case.rounds))]

    return [
        "# A practice's neighbours, measured",
        "",
        "Written by `make bench-neighbour`.",
        "",
        *machine.described(),
        "",
        f"One practice asks {RATE:.0f} times a second (open loop; lists of 20 and inserts in turn) while others",
        f"disturb it in a closed loop with the same calls. Medians of {rounds} rounds of {seconds:.0f} s, in which the",
        "rows alternate; the ratio is the median of the rounds' own ratios.",
        "",
        *table(["meanwhile", "p50 ms", "p99 ms", "p99, times of nothing", "failed"], map(cells, cases)),
    ]


def _latencies(rounds: Sequence[OpenLoop]) -> tuple[list[float], list[float]]:
    return [one.p50_ms for one in rounds], [one.p99_ms for one in rounds]


if __name__ == "__main__":
    main()
