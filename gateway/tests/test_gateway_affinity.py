"""Several processes of patient-service: a practice keeps to one, and nobody else's practices miss one that is down."""

import asyncio
from collections import Counter

import pytest
from gateway_stand import SHARD, Stand, constant, eventually
from starlette.requests import Request
from starlette.responses import Response

from gateway import readiness
from gateway.affinity import place_of
from gateway.breaker import FAILURES_TO_OPEN
from shared.ids import new_id

pytestmark = pytest.mark.both_ways

PATIENTS = "/api/v1/patients"
NAMES = ("patient", "patient-2")


@pytest.fixture
def pair(make_stand) -> Stand:
    return make_stand(patient_processes=2)


def _newcomers(stand: Stand, count: int) -> list[str]:
    """Practices that the directory knows."""
    ids = [str(new_id()) for _ in range(count)]
    stand.shards |= dict.fromkeys(ids, SHARD)
    return ids


def _one_of_each(stand: Stand) -> tuple[str, str]:
    """A practice of the first process and one of the second, found by calling."""
    at: dict[str, str] = {}
    while len(at) < len(NAMES):
        [practice] = _newcomers(stand, 1)
        assert stand.client.get(PATIENTS, headers=stand.bearer(practice=practice)).status_code == 200
        at[_where(stand, practice).pop()] = practice
    return at["patient"], at["patient-2"]


def _where(stand: Stand, practice: str) -> set[str]:
    """The processes that saw calls of a practice."""
    return {name for name in NAMES if any(call.caller.practice_id == practice for call in stand.services[name].calls)}


def test_a_practice_always_goes_to_the_same_process(pair: Stand) -> None:
    practices = _newcomers(pair, 30)
    for _ in range(3):
        for practice in practices:
            headers = {**pair.bearer(practice=practice), "Content-Type": "application/json"}
            assert pair.client.get(PATIENTS, headers=headers).status_code == 200
            assert pair.client.post(PATIENTS, content=b"{}", headers=headers).status_code == 200
    places = [_where(pair, practice) for practice in practices]
    assert {len(one) for one in places} == {1}
    assert set.union(*places) == set(NAMES), "thirty practices in one place would be no chance"


@pytest.mark.parametrize("places", [2, 3, 4, 7])
def test_practices_spread_evenly(places: int) -> None:
    """Ids are UUIDs of version 7: those of one hour look much alike."""
    counted = Counter(place_of(str(new_id()), places) for _ in range(10_000))
    assert counted.keys() == set(range(places))
    assert max(counted.values()) < 1.2 * 10_000 / places


def test_the_place_is_the_same_after_a_restart() -> None:
    """Python's own hash of a text is another one in each process."""
    practice = "0199aaaa-0000-7000-8000-000000000001"
    assert [place_of(practice, places) for places in (1, 2, 3, 4, 5)] == [0, 1, 2, 1, 3]


def test_only_the_practices_of_a_process_that_is_down_notice(pair: Stand) -> None:
    first, second = (pair.bearer(practice=practice) for practice in _one_of_each(pair))
    pair.stop_service("patient-2")
    for _ in range(FAILURES_TO_OPEN + 3):  # the circuit opens for one and not for the other
        answer = pair.client.get(PATIENTS, headers=second)
        assert answer.status_code in {502, 503}
        assert int(answer.headers["retry-after"]) >= 1
        assert pair.client.get(PATIENTS, headers=first).status_code == 200
    assert pair.client.get(PATIENTS, headers=second).json()["type"] == "/errors/circuit-open"
    pair.start_service("patient-2")
    eventually(lambda: pair.client.get(PATIENTS, headers=second).status_code == 200)


def test_a_hung_process_opens_its_own_circuit_only(make_stand) -> None:
    stand = make_stand(patient_processes=2, call_timeout_s=0.2)
    first, second = (stand.bearer(practice=practice) for practice in _one_of_each(stand))

    async def hang(_: Request) -> Response:
        await asyncio.sleep(60)
        return Response()

    stand.services["patient-2"].answers["GET", PATIENTS] = hang
    answers = [stand.client.get(PATIENTS, headers=second).status_code for _ in range(FAILURES_TO_OPEN + 1)]
    assert answers == [504] * FAILURES_TO_OPEN + [503]
    assert stand.client.get(PATIENTS, headers=first).status_code == 200


def test_it_is_ready_as_long_as_one_of_them_is(pair: Stand) -> None:
    """A balancer that took the gateway out would take it from the practices of the other one too."""
    pair.stop_service("patient")
    assert pair.client.get("/readyz").status_code == 200
    pair.services["patient-2"].missing = {"servers": "down"}
    assert pair.client.get("/readyz").json()["missing"].keys() == {"patient-service"}


def test_readyz_is_not_held_up_by_one_that_hangs(pair: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "ASK_TIMEOUT_S", 0.3)
    pair.services["patient-2"].hangs = True
    assert pair.client.get("/readyz").status_code == 200


@pytest.mark.parametrize("down", NAMES)
def test_the_document_is_asked_of_any(pair: Stand, down: str) -> None:
    for service in pair.services.values():
        service.answers["GET", "/openapi.json"] = constant({"openapi": "3.1.0", "paths": {}})
    pair.stop_service(down)
    assert pair.client.get("/openapi.json").status_code == 200
