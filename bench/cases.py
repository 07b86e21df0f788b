"""The cases of `make bench`, by group. A group's cases alternate."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

import limits
import statements
import wrk
from practices import LIST_20, LIST_1000, PATIENTS, Practice, log_in_request, sign_up, some_patients
from rounds import Case
from rows import Row
from stand import Stand

from patient_service.config import MOST_PER_PRACTICE

EIGHT = 8
"""Practices at work where pgbench has as many clients: as many connections on both sides."""
SIXTY = 60
CROWD = 50
BCRYPT_COST = 10
"""The embedded stack's default."""
JOURNEY = {"list": 50, "read": 30, "change": 10, "insert": 10}
"""Percent of the calls."""


@dataclass(frozen=True)
class Stage:
    """What the cases are made of."""

    stand: Stand
    seconds: float
    practices: Sequence[Practice]
    """The first eight hold 1,001 patients."""
    writers: Sequence[Practice]
    """As many as eight, for inserts."""
    plain_port: int
    nginx_list_port: int | None
    nginx_read_port: int | None

    def load(
        self,
        requests: Sequence[bytes],
        *,
        order: Sequence[int] = (),
        port: int | None = None,
        clients: int = wrk.CLIENTS,
    ) -> Case:
        """Loads the stack with these by wrk, or what listens on another port."""
        return partial(wrk.run, port or self.stand.port, requests, order=order, seconds=self.seconds, clients=clients)

    def pgbench(self, practice: Practice, script: str, clients: int) -> Case:
        """PostgreSQL alone."""
        return partial(limits.pgbench, self.stand, practice.database, script, seconds=self.seconds, clients=clients)


def list_of_20(stage: Stage) -> dict[str, Case]:
    """Against everything."""
    one = stage.practices[0]
    asked = [one.get(LIST_20)]
    cases: dict[str, Case] = {
        Row.LIST_20: stage.load(asked),
        Row.LIST_20_PLAIN: stage.load(asked, port=stage.plain_port),
        Row.LIST_20_SQL: stage.pgbench(one, statements.list_active(20), EIGHT),
        Row.LIST_20_USUAL_SQL: stage.pgbench(one, statements.usual_list(20), EIGHT),
    }
    if stage.nginx_list_port:
        cases[Row.LIST_20_NGINX] = stage.load(asked, port=stage.nginx_list_port)
    return cases


def list_of_1000(stage: Stage) -> dict[str, Case]:
    """As many connections on both sides: one practice alone has four of them, eight have one each."""
    one, ours, usual = stage.practices[0], statements.list_active(1000), statements.usual_list(1000)
    return {
        Row.LIST_1000: stage.load([one.get(LIST_1000)]),
        Row.LIST_1000_EIGHT: stage.load([practice.get(LIST_1000) for practice in stage.practices[:EIGHT]]),
        Row.LIST_1000_PLAIN: stage.load([one.get(LIST_1000)], port=stage.plain_port),
        Row.LIST_1000_SQL_ALONE: stage.pgbench(one, ours, MOST_PER_PRACTICE),
        Row.LIST_1000_SQL: stage.pgbench(one, ours, EIGHT),
        Row.LIST_1000_USUAL_SQL: stage.pgbench(one, usual, EIGHT),
    }


def read_one(stage: Stage) -> dict[str, Case]:
    """A thousand patients of one practice in turn."""
    one = stage.practices[0]
    asked = [one.get(f"{PATIENTS}/{patient_id}") for patient_id in some_patients(stage.stand, one, 1000)]
    cases: dict[str, Case] = {
        Row.READ: stage.load(asked),
        Row.READ_PLAIN: stage.load(asked, port=stage.plain_port),
    }
    if stage.nginx_read_port:
        cases[Row.READ_NGINX] = stage.load(asked, port=stage.nginx_read_port)
    return cases


def insert(stage: Stage) -> dict[str, Case]:
    """As with the list of 1,000: as many connections on both sides."""
    one = stage.writers[0]
    return {
        Row.INSERT: stage.load([one.insert()]),
        Row.INSERT_EIGHT: stage.load([practice.insert() for practice in stage.writers]),
        Row.INSERT_PLAIN: stage.load([one.insert()], port=stage.plain_port),
        Row.INSERT_SQL_ALONE: stage.pgbench(one, statements.insert_patient(), MOST_PER_PRACTICE),
        Row.INSERT_SQL: stage.pgbench(one, statements.insert_patient(), EIGHT),
    }


def log_in(stage: Stage) -> dict[str, Case]:
    """Few clients, since every core hashes one password at a time."""
    return {
        Row.LOG_IN: stage.load([log_in_request(one.email) for one in stage.practices[:EIGHT]], clients=EIGHT),
        Row.LOG_IN_BARE: partial(limits.checkpw, cost=BCRYPT_COST, seconds=stage.seconds),
    }


def signing_up(stand: Stand) -> dict[str, Case]:
    """Each round makes practices of its own."""
    alone, crowd = count(), count()
    return {
        Row.SIGN_UP: lambda: sign_up(stand, f"alone-{next(alone)}", range(20), clients=1),
        Row.SIGN_UP_CROWD: lambda: sign_up(stand, f"crowd-{next(crowd)}", range(CROWD), clients=CROWD),
    }


def many(stage: Stage, everyone: Sequence[Practice]) -> dict[str, Case]:
    """One practice, sixty and all of them, whose connections are open."""
    asked = [practice.get(LIST_20) for practice in everyone]
    return {
        Row.MANY_ONE: stage.load(asked[:1]),
        Row.MANY_60: stage.load(asked[:SIXTY], order=wrk.uniform(len(asked[:SIXTY]))),
        Row.MANY_UNIFORM: stage.load(asked, order=wrk.uniform(len(asked))),
        Row.MANY_SKEWED: stage.load(asked, order=wrk.skewed(len(asked))),
    }


def journey(stage: Stage) -> dict[str, Case]:
    """Lists, reads, changes and inserts as people mix them."""
    requests: dict[str, list[bytes]] = {kind: [] for kind in JOURNEY}
    for practice in stage.practices[:SIXTY]:
        (patient_id,) = some_patients(stage.stand, practice, 1)
        requests["list"].append(practice.get(LIST_20))
        requests["read"].append(practice.get(f"{PATIENTS}/{patient_id}"))
        requests["change"].append(practice.change(patient_id))
        requests["insert"].append(practice.insert())
    weights = [percent / len(requests[kind]) for kind, percent in JOURNEY.items() for _ in requests[kind]]
    asked = [request for kind in JOURNEY for request in requests[kind]]
    return {Row.JOURNEY: stage.load(asked, order=wrk.weighted(weights))}
