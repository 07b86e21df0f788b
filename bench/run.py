"""`make bench`: starts an embedded stack of its own, measures it on this machine and writes bench/results.md.

Figures of one run on one machine: compare the rows of a run, not two machines.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cases
import load
import machine
import wrk
from limits import nginx_program, nginx_proxying
from peer import running_peer
from practices import LIST_20, PATIENTS, PATIENTS_EACH, Practice, make, some_patients
from report import Findings, rendered
from rounds import alternate
from rows import Row
from stand import Stand, running_stack, temporary_home

RESULTS = Path(__file__).with_name("results.md")
SERVICES_CONNECTIONS = 300
"""Of PostgreSQL's max_connections: for everything but the practices."""
SETTINGS = {"TOKEN_EXPIRE_IN": "24hr"}


def main() -> None:
    """Measures and writes."""
    options = _options()
    wrk.require()
    findings = Findings(
        machine.described(), options.seconds, options.rounds, options.practices, nginx=nginx_program() is not None
    )
    _start_up(findings)
    connections = max(1000, options.practices + SERVICES_CONNECTIONS)
    with temporary_home() as home, running_stack(home, EMBEDDED_MAX_CONNECTIONS=connections, **SETTINGS) as stand:
        _measure(stand, findings)
    RESULTS.write_text(rendered(findings))
    sys.stdout.write(RESULTS.read_text())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--practices", type=int, default=2000, help="how many practices “all” are (2000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each row (3)")
    parser.add_argument("--seconds", type=float, default=4, help="length of a row in a round (4)")
    return parser.parse_args()


def _start_up(findings: Findings) -> None:
    """As `make up` does it, with every default: from nothing, then again with the data there is."""
    first, again = [], []
    for _ in range(findings.rounds):
        with temporary_home() as home:
            with running_stack(home) as stand:
                first.append(stand.ready_s)
                _look(stand, findings, "at rest")
            with running_stack(home) as stand:
                again.append(stand.ready_s)
    findings.first_ready_s, findings.again_ready_s = first, again


def _measure(stand: Stand, findings: Findings) -> None:
    everyone = make(stand, "large", cases.EIGHT, patients=1001)
    everyone += make(stand, "small", cases.SIXTY - cases.EIGHT, patients=PATIENTS_EACH)
    with _stage(stand, findings.seconds, everyone) as stage:
        for group in (cases.list_of_20, cases.list_of_1000, cases.read_one, cases.insert, cases.log_in):
            findings.measured |= alternate(stand, group(stage), findings.rounds)
        findings.measured |= alternate(stand, cases.signing_up(stand), findings.rounds)
        _open_loop(stage, findings)
        _look(stand, findings, "after the load")
        everyone += make(stand, "more", max(0, findings.practices - len(everyone)), patients=PATIENTS_EACH)
        load.run_all(stand.port, [practice.get(LIST_20) for practice in everyone], clients=wrk.CLIENTS)
        findings.measured |= alternate(stand, cases.many(stage, everyone), findings.rounds)
        _look(stand, findings, f"{len(everyone):,} practices warm")
        findings.measured |= alternate(stand, cases.journey(stage), findings.rounds)


@contextmanager
def _stage(stand: Stand, seconds: float, practices: list[Practice]) -> Iterator[cases.Stage]:
    """With the peer and the limits that answer HTTP."""
    one = practices[0]
    writers = make(stand, "writer", cases.EIGHT, patients=0)
    (patient_id,) = some_patients(stand, one, 1)
    listed, read = load.ask_all(stand.port, [one.get(LIST_20), one.get(f"{PATIENTS}/{patient_id}")], clients=1)
    with ExitStack() as running:
        yield cases.Stage(
            stand,
            seconds,
            practices,
            writers,
            running.enter_context(running_peer(stand, [one, writers[0]])),
            running.enter_context(nginx_proxying(listed[1])),
            running.enter_context(nginx_proxying(read[1])),
        )


def _open_loop(stage: cases.Stage, findings: Findings) -> None:
    """At parts of the closed loop's rate, where the generator can send so much beside the stack."""
    asked = [stage.practices[0].get(LIST_20)]
    closed = statistics.median(one.per_second for one in findings.measured[Row.LIST_20])
    if stage.nginx_list_port:
        findings.generator_per_second = load.run_all(
            stage.nginx_list_port, asked * 20_000, clients=wrk.CLIENTS
        ).per_second
    found = []
    for part in (0.25, 0.5, 0.75):
        stage.stand.wait_idle()
        rate = min(part * closed, findings.generator_per_second or part * closed)
        found.append(load.open_loop(stage.stand.port, asked, per_second=rate, seconds=2 * findings.seconds))
    findings.open_loop = found


def _look(stand: Stand, findings: Findings, moment: str) -> None:
    findings.memory[moment] = stand.memory_mb()
    findings.connections[moment] = stand.connections()


if __name__ == "__main__":
    main()
