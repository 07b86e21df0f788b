"""How many processes of gateway and patient-service serve this machine best: several stacks side by side."""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import load
import wrk
from measured import Measured, median_of
from practices import LIST_20, PATIENTS_EACH, make
from rounds import Case, Rounds, observed
from stand import Stand, running_stack, temporary_home

PRACTICES = 60
CHOICES = ((1, 1), (2, 1), (1, 2), (2, 2))
"""Processes of the gateway, of patient-service."""


@dataclass(frozen=True)
class Choice:
    """What a number of processes came to."""

    gateways: int
    patient_services: int
    listed: Measured
    inserted: Measured


def compared(*, rounds: int, seconds: float) -> list[Choice]:
    """All choices, alternating; a stack that is not asked takes next to nothing of the machine."""
    with ExitStack() as running:
        stands = [_stand(running, gateways, patient_services) for gateways, patient_services in CHOICES]
        cases = [_cases(stand, seconds) for stand in stands]
        found: list[Rounds] = [{name: [] for name in one} for one in cases]
        for _ in range(rounds):
            for name in cases[0]:
                for stand, one, rows in zip(stands, cases, found, strict=True):
                    rows[name].append(observed(stand, one[name]))
    return [
        Choice(*choice, median_of(rows["list"]), median_of(rows["insert"]))
        for choice, rows in zip(CHOICES, found, strict=True)
    ]


def _stand(running: ExitStack, gateways: int, patient_services: int) -> Stand:
    home = running.enter_context(temporary_home())
    return running.enter_context(running_stack(home, GATEWAY_PROCESSES=gateways, PATIENT_PROCESSES=patient_services))


def _cases(stand: Stand, seconds: float) -> dict[str, Case]:
    practices = make(stand, "practice", PRACTICES, patients=PATIENTS_EACH)
    listed = [practice.get(LIST_20) for practice in practices]
    load.run_all(stand.port, listed, clients=wrk.CLIENTS)
    inserted = [practice.insert() for practice in practices]
    return {
        "list": partial(wrk.run, stand.port, listed, order=wrk.uniform(PRACTICES), seconds=seconds),
        "insert": partial(wrk.run, stand.port, inserted, order=wrk.uniform(PRACTICES), seconds=seconds),
    }
