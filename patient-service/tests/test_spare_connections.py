"""A busy practice's spare connections: opened and used only while nobody else needs what they take."""

import asyncio
from collections.abc import Callable

import pytest
from patient_practices import (
    PatientClient,
    Practice,
    ShardServer,
    TenantService,
    at_rest,
    eventually,
    holding_table,
    pool_of,
    running,
    settings_for,
)

from patient_service.config import MOST_PER_PRACTICE
from patient_service.exceptions import ServerFullError
from patient_service.servers import Server
from patient_service.shard_connection import ShardConnection
from patient_service.shard_opening import Shard, ShardOpener
from patient_service.shard_pool import SPARE_WAITING, ShardPool

pytestmark = pytest.mark.anyio
FOR_EVER_S = 60.0
"""As far as a test is concerned."""


@pytest.fixture(autouse=True)
def set_alone_s(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets after which time without the others' calls a practice is alone: at once, unless a test says otherwise."""

    def set_to(seconds: float) -> None:
        monkeypatch.setattr("patient_service.shard_pool.ALONE_S", seconds)

    set_to(0.0)
    return set_to


def calls_of(service: PatientClient, practice: Practice, count: int) -> "list[asyncio.Task[list[str]]]":
    return [asyncio.create_task(service.names(practice)) for _ in range(count)]


def connections_of(pool: ShardPool, practice: Practice) -> int:
    lane = pool._lanes.get((practice.id, practice.shard))
    return len(lane.connections) if lane else 0


async def has_waiting(pool: ShardPool, count: int) -> None:
    """Waits until so many calls wait, and nothing is being opened for them."""
    await eventually(lambda: pool.waiting == count and not pool._tasks)


async def nap(pool: ShardPool, practice: Practice) -> None:
    await pool.fetch(practice.id, practice.shard, "SELECT pg_sleep(0.1)", ())


async def grow_spares(service: PatientClient, practice: Practice, server: ShardServer) -> None:
    """Until the practice has all the connections that it may have; they are idle then."""
    with holding_table(server, practice):
        calls = calls_of(service, practice, MOST_PER_PRACTICE * SPARE_WAITING)
        await eventually(lambda: connections_of(pool_of(service), practice) == MOST_PER_PRACTICE)
    await asyncio.gather(*calls)
    await at_rest(pool_of(service))


async def test_a_crowd_gets_spare_connections_and_no_more_than_allowed(
    service: PatientClient, practice: Practice, shard_server: ShardServer
):
    await service.names(practice)
    with holding_table(shard_server, practice):
        calls = calls_of(service, practice, 40)
        await has_waiting(pool_of(service), 40 - MOST_PER_PRACTICE)
    assert await asyncio.gather(*calls) == [[]] * 40
    assert shard_server.sessions(practice) == pool_of(service).opened == MOST_PER_PRACTICE
    await at_rest(pool_of(service))


async def test_few_waiting_calls_get_none(service: PatientClient, practice: Practice, shard_server: ShardServer):
    await service.names(practice)
    with holding_table(shard_server, practice):
        calls = calls_of(service, practice, SPARE_WAITING)  # one of them is on its way
        await has_waiting(pool_of(service), SPARE_WAITING - 1)
    await asyncio.gather(*calls)
    assert pool_of(service).opened == 1


@pytest.mark.parametrize(("processes", "allowed"), [(1, MOST_PER_PRACTICE), (2, 2), (9, 1)])
async def test_processes_share_what_a_practice_may_have(tenant: TenantService, processes: int, allowed: int):
    assert settings_for(tenant, patient_processes=processes).per_practice == allowed
    assert settings_for(tenant, patient_processes=processes, connections_per_practice=3).per_practice == 3


async def test_no_spare_is_opened_soon_after_others_called(
    service: PatientClient, practice: Practice, shard_server: ShardServer, set_alone_s: Callable[[float], None]
):
    set_alone_s(FOR_EVER_S)
    await service.names(practice)
    pool = pool_of(service)
    with holding_table(shard_server, practice):
        calls = calls_of(service, practice, 20)
        await has_waiting(pool, 19)
        set_alone_s(0.0)
        calls += calls_of(service, practice, 1)
        await has_waiting(pool, 21 - MOST_PER_PRACTICE)
    assert await asyncio.gather(*calls) == [[]] * 21
    await at_rest(pool)


async def test_spares_that_are_there_rest_while_others_call_and_are_used_again_after(
    service: PatientClient, practice: Practice, shard_server: ShardServer, set_alone_s: Callable[[float], None]
):
    pool = pool_of(service)
    await grow_spares(service, practice, shard_server)
    set_alone_s(FOR_EVER_S)
    with holding_table(shard_server, practice):
        calls = calls_of(service, practice, 10)
        await has_waiting(pool, 9)
        assert pool.slots["a"].at_work == 1
        set_alone_s(0.0)
        calls += calls_of(service, practice, MOST_PER_PRACTICE)  # each lets the first of those who wait go
        await eventually(lambda: pool.slots["a"].at_work == MOST_PER_PRACTICE)
    assert await asyncio.gather(*calls) == [[]] * len(calls)
    await at_rest(pool)


async def test_spares_stop_when_another_practice_calls(
    service: PatientClient, practice: Practice, other_practice: Practice, shard_server: ShardServer
):
    pool = pool_of(service)
    await grow_spares(service, practice, shard_server)
    calls = [asyncio.create_task(nap(pool, practice)) for _ in range(5 * MOST_PER_PRACTICE)]
    await eventually(lambda: pool.slots["a"].at_work == MOST_PER_PRACTICE)
    await service.names(other_practice)
    await eventually(lambda: pool.slots["a"].at_work == 1)
    assert pool.waiting > MOST_PER_PRACTICE
    await asyncio.gather(*calls)
    await at_rest(pool)


async def test_who_has_something_under_way_is_not_forgotten_for_being_quiet(
    service: PatientClient, practice: Practice, other_practice: Practice, shard_server: ShardServer
):
    """A practice whose clients all wait for a slow statement doesn't call meanwhile."""
    pool = pool_of(service)
    await service.names(practice)
    with holding_table(shard_server, other_practice), holding_table(shard_server, practice):
        calls = calls_of(service, other_practice, 1)
        await eventually(lambda: pool.slots["a"].at_work == 1)
        calls += calls_of(service, practice, 20)
        await has_waiting(pool, 19)
    await asyncio.gather(*calls)
    assert pool.opened == 2
    await at_rest(pool)


async def test_all_who_wait_get_the_spares_before_a_new_call(
    service: PatientClient,
    practice: Practice,
    shard_server: ShardServer,
    set_alone_s: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
):
    pool, begun, begin_really = pool_of(service), [], ShardConnection.begin
    await grow_spares(service, practice, shard_server)
    set_alone_s(FOR_EVER_S)

    def begin_and_note(connection: ShardConnection, statement: str, *call) -> bool:
        begun.append(statement)
        return begin_really(connection, statement, *call)

    monkeypatch.setattr(ShardConnection, "begin", begin_and_note)

    def fetching(seconds: float) -> "asyncio.Task[list[tuple[object]]]":
        statement = f"SELECT pg_sleep({seconds})"
        return asyncio.create_task(pool.fetch(practice.id, practice.shard, statement, ()))

    calls = [fetching(0.5)]
    await eventually(lambda: pool.slots["a"].at_work == 1)
    calls += [fetching(0.2), fetching(0.21), fetching(0.22)]
    await has_waiting(pool, 3)
    set_alone_s(0.0)
    calls.append(fetching(0.23))
    await asyncio.gather(*calls)
    assert begun == [f"SELECT pg_sleep({seconds})" for seconds in (0.5, 0.2, 0.21, 0.22, 0.23)]
    await at_rest(pool)


async def test_a_failed_spare_is_followed_by_an_earnest_try_if_the_connection_at_work_is_lost(
    service: PatientClient, practice: Practice, shard_server: ShardServer, monkeypatch: pytest.MonkeyPatch
):
    pool, open_really, tries = pool_of(service), ShardOpener.open, []
    await service.names(practice)
    lane = pool._lanes[practice.id, practice.shard]
    refused = asyncio.Event()

    async def open_later(opener: ShardOpener, server: Server, shard: Shard) -> ShardConnection:
        tries.append(shard)
        if len(tries) == 1:
            await refused.wait()
            raise ServerFullError
        return await open_really(opener, server, shard)

    monkeypatch.setattr(ShardOpener, "open", open_later)
    with holding_table(shard_server, practice):
        lost = asyncio.create_task(service.call(practice, "GET"))
        await eventually(lambda: lane.at_work == 1)
        calls = calls_of(service, practice, 2 * SPARE_WAITING)
        await eventually(lambda: tries)
        next(iter(lane.connections)).close()
    assert (await lost).status_code == 503
    refused.set()
    assert await asyncio.gather(*calls) == [[]] * len(calls)
    await at_rest(pool)


@pytest.mark.parametrize("at_once", [False, True], ids=["answered later", "answered at once"])
async def test_who_waits_is_served_before_who_finds_a_spare_idle(
    service: PatientClient,
    practice: Practice,
    shard_server: ShardServer,
    monkeypatch: pytest.MonkeyPatch,
    set_alone_s: Callable[[float], None],
    *,
    at_once: bool,
):
    """And nobody is forgotten when the server was so fast that the spare is idle again already."""
    pool, begun, begin_really = pool_of(service), [], ShardConnection.begin

    def begin_and_note(connection: ShardConnection, statement: str, *call) -> bool:
        begun.append(statement)
        begin_really(connection, statement, *call)
        connection._is_beginning = at_once
        while at_once and connection.busy:
            connection._advance()
        connection._is_beginning = False
        return connection.busy

    def fetching(statement: str) -> "asyncio.Task[list[tuple[int]]]":
        return asyncio.create_task(pool.fetch(practice.id, practice.shard, statement, ()))

    await grow_spares(service, practice, shard_server)
    with holding_table(shard_server, practice):
        set_alone_s(FOR_EVER_S)
        first = asyncio.create_task(service.names(practice))
        await eventually(lambda: pool.slots["a"].at_work == 1)
        waiting = fetching("SELECT 1")
        await has_waiting(pool, 1)
        set_alone_s(0.0)
        monkeypatch.setattr(ShardConnection, "begin", begin_and_note)
        late = fetching("SELECT 2")
        assert await asyncio.gather(waiting, late) == [[(1,)], [(2,)]]
        assert begun == ["SELECT 1", "SELECT 2"]
    await first
    await at_rest(pool)


async def test_a_spare_takes_over_when_the_connection_at_work_is_lost(
    service: PatientClient, practice: Practice, shard_server: ShardServer, set_alone_s: Callable[[float], None]
):
    pool = pool_of(service)
    await grow_spares(service, practice, shard_server)
    lane, opened = pool._lanes[practice.id, practice.shard], pool.opened
    set_alone_s(FOR_EVER_S)
    with holding_table(shard_server, practice):
        lost = asyncio.create_task(service.call(practice, "GET"))
        await eventually(lambda: lane.at_work == 1)
        waiting = asyncio.create_task(pool.fetch(practice.id, practice.shard, "SELECT 1", {}))
        await has_waiting(pool, 1)
        shard_server.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s AND wait_event_type = 'Lock'",
            (practice.database,),
        )
        assert await waiting == [(1,)]
        assert (await lost).status_code == 503
    assert pool.opened == opened
    await at_rest(pool)


async def test_spares_leave_half_of_the_budget_to_the_first_connections(
    tenant: TenantService, practice: Practice, shard_server: ShardServer
):
    async with running(settings_for(tenant, shard_connections=4)) as service:
        await service.names(practice)
        with holding_table(shard_server, practice):
            calls = calls_of(service, practice, 20)
            await has_waiting(pool_of(service), 18)
        await asyncio.gather(*calls)
        assert pool_of(service).opened == 2
        await at_rest(pool_of(service))


async def test_a_spare_that_cant_be_opened_harms_nobody_and_isnt_tried_again_at_once(
    service: PatientClient,
    practice: Practice,
    other_practice: Practice,
    shard_server: ShardServer,
    monkeypatch: pytest.MonkeyPatch,
):
    shard_server.run(f"ALTER ROLE {practice.database} CONNECTION LIMIT 1")
    await service.names(other_practice)
    await service.names(practice)
    pool, open_really, tries = pool_of(service), ShardOpener.open, []

    async def open_and_count(opener: ShardOpener, server: Server, shard: Shard) -> ShardConnection:
        tries.append(shard)
        return await open_really(opener, server, shard)

    monkeypatch.setattr(ShardOpener, "open", open_and_count)
    with holding_table(shard_server, practice):
        calls = calls_of(service, practice, 20)
        await has_waiting(pool, 19)
        calls += calls_of(service, practice, 20)
        await has_waiting(pool, 39)
    assert await asyncio.gather(*calls) == [[]] * 40
    assert len(tries) == 1
    assert pool.slots["a"].evicted == 0
    assert shard_server.sessions(other_practice) == 1
    await at_rest(pool)


async def test_spares_give_way_to_a_practice_that_waits_for_a_slot(
    tenant: TenantService,
    practice: Practice,
    other_practice: Practice,
    shard_server: ShardServer,
    monkeypatch: pytest.MonkeyPatch,
):
    async with running(settings_for(tenant, shard_connections=8)) as service:
        await grow_spares(service, practice, shard_server)
        pool = pool_of(service)
        pool._budget = lambda _: MOST_PER_PRACTICE
        monkeypatch.setattr(ShardPool, "_is_alone", lambda *_: True)
        calls = [asyncio.create_task(nap(pool, practice)) for _ in range(10 * MOST_PER_PRACTICE)]
        await eventually(lambda: pool.slots["a"].at_work == MOST_PER_PRACTICE)
        assert await service.names(other_practice) == []
        assert pool.waiting > 2 * MOST_PER_PRACTICE
        await asyncio.gather(*calls)
        await at_rest(pool)


async def test_idle_spares_are_closed_soon_and_the_first_connection_stays(
    tenant: TenantService, practice: Practice, shard_server: ShardServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("patient_service.shard_pool.EXPIRE_EVERY_S", 0.05)
    monkeypatch.setattr("patient_service.shard_pool.SPARE_IDLE_S", 0.3)
    async with running(settings_for(tenant)) as service:
        await grow_spares(service, practice, shard_server)
        await eventually(lambda: shard_server.sessions(practice) == 1)
        await asyncio.sleep(0.5)
        assert shard_server.sessions(practice) == 1
        await at_rest(pool_of(service))
