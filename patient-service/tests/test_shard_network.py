"""A network between service and shard server that is slow, cuts what is sent, or falls silent."""

import asyncio
import collections
import contextlib
import random
from collections.abc import AsyncIterator

import pytest
from patient_practices import (
    JOHN,
    PatientClient,
    Practice,
    ShardServer,
    TenantService,
    eventually,
    running,
    settings_for,
)
from shard_proxy import ShardProxy

from patient_service import shard_connection, shard_pool

pytestmark = pytest.mark.anyio

LIMIT_S = 0.4
"""What stands for the seven seconds of a statement and the five of an opening."""
FOUR_BYTES = "😀"


@pytest.fixture
async def proxy(shard_server: ShardServer, anyio_backend: object) -> AsyncIterator[ShardProxy]:
    async with ShardProxy(shard_server.postgres).listening() as listening:
        yield listening


@pytest.fixture
def far(tenant: TenantService, shard_server: ShardServer, proxy: ShardProxy) -> Practice:
    """A practice on server `b`, which is reached through the proxy."""
    tenant.name("b", shard_server.postgres, port=proxy.port)
    practice = shard_server.practice()
    return Practice(practice.id, practice.database, "b")


@pytest.fixture
async def service(tenant: TenantService, far: Practice, anyio_backend: object) -> AsyncIterator[PatientClient]:
    """One that starts when both servers are known."""
    async with running(settings_for(tenant)) as client:
        yield client


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_connection, "STATEMENT_LIMIT_S", LIMIT_S)
    monkeypatch.setattr(shard_connection, "CANCEL_LIMIT_S", LIMIT_S)
    monkeypatch.setattr(shard_pool, "OPEN_LIMIT_S", LIMIT_S)


async def at_rest(service: PatientClient) -> None:
    """Waits until nothing is under way on server `b`; its slots are as many as its connections."""
    pool = service.app.state.pool
    slots = pool.slots["b"]
    await eventually(lambda: not (pool.waiting or pool._tasks or slots.used != slots.idle))
    assert slots.used == sum(len(lane.connections) for (_, shard), lane in pool._lanes.items() if shard[0] == "b")


def names_stored(shard_server: ShardServer, practice: Practice) -> list[str]:
    return [name for (name,) in shard_server.run("SELECT name FROM patients", database=practice.database)]


async def test_answers_in_single_bytes_are_read_as_whole_ones(service: PatientClient, far: Practice, proxy: ShardProxy):
    proxy.largest_piece = 1
    patients = [await service.add(far, name=f"Zoë {FOUR_BYTES} {number}") for number in range(3)]
    assert (await service.call(far, "GET")).json()["result"]["data"] == patients
    refused = await service.call(far, "POST", json=JOHN | {"age": 151})
    assert refused.status_code == 422
    assert (await service.call(far, "DELETE", f"/{patients[0]['id']}")).status_code == 200
    assert await service.names(far) == [patient["name"] for patient in patients[1:]]
    assert service.app.state.pool.opened == 1


@pytest.mark.parametrize("largest_piece", [500, 65536])
async def test_the_largest_page_arrives_whole(
    service: PatientClient, far: Practice, proxy: ShardProxy, shard_server: ShardServer, largest_piece: int
):
    """1,000 patients, each name 200 characters of four bytes."""
    shard_server.run(
        "INSERT INTO patients (id, name, mobile, age)"
        " SELECT ('01990000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid,"
        " lpad(n::text, 200, %s), '9876543210', 30 FROM generate_series(1, 1001) AS n",
        (FOUR_BYTES,),
        database=far.database,
    )
    proxy.largest_piece = largest_piece
    answer = await service.call(far, "GET", "?limit=1000")
    page = answer.json()["result"]
    assert len(answer.content) > 800_000
    assert [patient["name"] for patient in page["data"]] == [str(n).rjust(200, FOUR_BYTES) for n in range(1, 1001)]
    rest = await service.names(far, limit=1000, cursor=page["next_cursor"])
    assert rest == ["1001".rjust(200, FOUR_BYTES)]


async def test_an_answer_that_stops_anywhere_holds_up_nobody_else(
    service: PatientClient, far: Practice, practice: Practice, proxy: ShardProxy, shard_server: ShardServer
):
    """Neither between two results of one message (the first use prepares its statement) nor before the last byte."""
    await service.add(far, name="Far")
    await service.add(practice, name="Near")
    for arrives in (*range(1, 30), 60, 120, 200, 280):
        await end_sessions(service, far, shard_server)
        assert (await service.call(far, "GET", "/01990000-0000-7000-8000-000000000000")).status_code == 404
        proxy.let_through(arrives)  # of the list, which this session hasn't prepared yet
        call = asyncio.create_task(service.names(far))
        await eventually(lambda: proxy.answer_bytes == 0)
        async with asyncio.timeout(5):
            for _ in range(3):
                assert await service.names(practice) == ["Near"]
        assert not call.done()
        proxy.let_through()
        assert await call == ["Far"]


async def end_sessions(service: PatientClient, practice: Practice, shard_server: ShardServer) -> None:
    slots = service.app.state.pool.slots["b"]
    shard_server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (practice.database,))
    await eventually(lambda: not slots.used)


@pytest.mark.parametrize("arrives", [0, 20])
@pytest.mark.usefixtures("short_limits")
async def test_a_server_that_falls_silent_is_answered_in_time_and_its_connection_replaced(
    service: PatientClient, far: Practice, practice: Practice, proxy: ShardProxy, arrives: int
):
    """Before the answer, and in the middle of it."""
    patient = await service.add(far)
    proxy.let_through(arrives)
    calls = [asyncio.create_task(service.call(far, "GET")) for _ in range(5)]
    assert await service.names(practice) == []
    assert not any(call.done() for call in calls)
    answers = await asyncio.gather(*calls)
    assert {answer.status_code for answer in answers} == {503}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
    proxy.let_through()
    await eventually(lambda: service.answers(far, 200))
    assert await service.names(far) == [patient["name"]]
    await at_rest(service)


@pytest.mark.usefixtures("short_limits")
async def test_a_write_whose_request_or_answer_is_lost_is_executed_at_most_once(
    service: PatientClient, far: Practice, proxy: ShardProxy, shard_server: ShardServer
):
    await service.add(far, name="Known")
    proxy.let_through(0)
    answer_lost = await service.call(far, "POST", json=JOHN | {"name": "Answer lost"})
    proxy.let_through()
    await service.add(far, name="Known too")
    proxy.swallows_requests = True
    request_lost = await service.call(far, "POST", json=JOHN | {"name": "Request lost"})
    proxy.swallows_requests = False
    await service.add(far, name="Known at last")
    assert {answer_lost.status_code, request_lost.status_code} == {503}
    assert names_stored(shard_server, far) == ["Known", "Answer lost", "Known too", "Known at last"]
    await at_rest(service)


@pytest.mark.usefixtures("short_limits")
async def test_an_abandoned_call_to_a_silent_server_costs_its_connection_only(
    service: PatientClient, far: Practice, proxy: ShardProxy
):
    """Even the request to cancel isn't answered."""
    await service.names(far)
    proxy.let_through(0)
    call = asyncio.create_task(service.call(far, "GET"))
    await asyncio.sleep(0)
    await eventually(lambda: service.app.state.pool.slots["b"].idle == 0)
    call.cancel()
    await asyncio.wait({call})
    await eventually(lambda: not service.app.state.pool.slots["b"].used)
    proxy.let_through()
    assert await service.names(far) == []
    assert service.app.state.pool.opened == 2
    await at_rest(service)


@pytest.mark.parametrize("arrives", [0, 5, 200])
@pytest.mark.usefixtures("short_limits")
async def test_a_server_that_falls_silent_while_a_connection_opens_is_unavailable(
    service: PatientClient, far: Practice, proxy: ShardProxy, arrives: int
):
    proxy.let_through(arrives)
    answers = await asyncio.gather(*(service.call(far, "GET") for _ in range(3)))
    assert {(answer.status_code, answer.json()["type"]) for answer in answers} == {(503, "/errors/shard-unavailable")}
    assert all("retry-after" in answer.headers for answer in answers)
    assert service.app.state.pool.slots["b"].used == 0
    proxy.let_through()
    assert await service.names(far) == []
    await at_rest(service)


async def test_abandoned_writes_are_executed_at_most_once_and_acknowledged_ones_exactly_once(
    service: PatientClient, far: Practice, proxy: ShardProxy, shard_server: ShardServer
):
    proxy.largest_piece = 40
    dice = random.Random(5)
    acknowledged: list[str] = []
    refused: list[str] = []

    async def add(name: str) -> None:
        answer = await service.call(far, "POST", json=JOHN | {"name": name})
        if answer.status_code == 201:
            acknowledged.append(name)
        else:  # on a machine that has other things to do
            assert (answer.status_code, answer.json()["type"]) == (503, "/errors/practice-busy")
            refused.append(name)

    async def client(number: int) -> None:
        for turn in range(25):
            call = asyncio.create_task(add(f"{number} {turn}"))
            for _ in range(dice.randint(0, 15)):
                await asyncio.sleep(dice.choice([0, 0, 0.001]))
            if dice.random() < 0.6:
                call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call

    await asyncio.gather(*(client(number) for number in range(20)))
    await at_rest(service)
    stored = collections.Counter(names_stored(shard_server, far))
    assert set(stored.values()) == {1}
    assert set(acknowledged) <= stored.keys()
    assert not set(refused) & stored.keys()
    assert len(acknowledged) > 100
    assert len(acknowledged) < 500
