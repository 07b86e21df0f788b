"""Who gets a connection when: one for each practice, in turn, within the budget; and nobody another's rows."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import psycopg2
import pytest
from patient_practices import (
    JOHN,
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

from gowebbo_stack.testing import running_postgres
from patient_service.config import MOST_PER_PRACTICE
from patient_service.servers import Server
from patient_service.shard_connection import ShardConnection
from patient_service.shard_opening import Shard, ShardOpener

pytestmark = pytest.mark.anyio


async def test_parallel_first_calls_open_one_connection(
    tenant: TenantService, practice: Practice, shard_server: ShardServer
):
    async with running(settings_for(tenant, connections_per_practice=1)) as service:
        await asyncio.gather(*(service.names(practice) for _ in range(50)))
        assert pool_of(service).opened == 1
        assert shard_server.sessions(practice) == 1
        await at_rest(pool_of(service))


async def test_calls_of_a_practice_are_served_in_the_order_they_came(
    tenant: TenantService, practice: Practice, shard_server: ShardServer
):
    async with running(settings_for(tenant, connections_per_practice=1)) as service:
        await service.names(practice)
        pool, served = pool_of(service), []

        async def call(number: int) -> None:
            await pool.fetch(practice.id, practice.shard, "SELECT count(*) FROM patients", ())
            served.append(number)

        with holding_table(shard_server, practice):
            calls = [asyncio.create_task(call(number)) for number in range(20)]
            await eventually(lambda: pool.waiting == 19)
        await asyncio.gather(*calls)
        assert served == list(range(20))


async def test_cancelled_calls_never_mix_answers(
    service: PatientClient, practice: Practice, other_practice: Practice, shard_server: ShardServer
):
    """The redis-py CVE-2023-28858 kind of bug: an abandoned answer read by the next caller."""
    owners = [practice, other_practice]
    patients = {owner: [await service.add(owner, name=f"{owner.id} {n}") for n in range(20)] for owner in owners}
    outcomes: Counter[str] = Counter()
    dice = random.Random(7)

    def note(answer: httpx.Response, is_right: bool) -> None:  # noqa: FBT001 - called twice
        busy = answer.status_code == 503  # on a machine that has other things to do
        outcomes["busy" if busy else "right" if is_right else "mixed"] += 1

    async def read_one(owner: Practice) -> None:
        patient = dice.choice(patients[owner])
        answer = await service.call(owner, "GET", f"/{patient['id']}")
        note(answer, answer.json().get("result") == patient)

    async def list_some(owner: Practice) -> None:
        limit = dice.randint(1, 20)
        answer = await service.call(owner, "GET", f"?limit={limit}")
        note(answer, answer.json().get("result", {}).get("data") == patients[owner][:limit])

    async def sometimes_cancelled() -> None:
        call = asyncio.create_task(dice.choice([read_one, list_some])(dice.choice(owners)))
        for _ in range(dice.randint(0, 12)):
            await asyncio.sleep(dice.choice([0, 0, 0.0005]))
        if dice.random() < 0.7:
            call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
            return
        outcomes["cancelled"] += 1

    async def client() -> None:
        for _ in range(200):
            await sometimes_cancelled()

    await asyncio.gather(*(client() for _ in range(50)))
    assert outcomes["mixed"] == 0
    assert outcomes.total() == 10_000
    assert outcomes["right"] > 2000
    assert outcomes["cancelled"] > 2000
    await at_rest(pool_of(service))
    assert 2 <= shard_server.sessions(*owners) <= 2 * MOST_PER_PRACTICE


async def test_an_abandoned_slow_statement_is_cancelled_on_the_server(
    service: PatientClient, practice: Practice, shard_server: ShardServer
):
    for setting in ("lock_timeout", "statement_timeout"):
        shard_server.run(f"ALTER ROLE {practice.database} SET {setting} = '1h'")
    await service.names(practice)
    with holding_table(shard_server, practice):
        call = asyncio.create_task(service.call(practice, "POST", json=JOHN))
        await eventually(lambda: asyncio.to_thread(blocked, shard_server, practice))
        call.cancel()
        # the role's own limit is far away: what ends it is the request to cancel it
        await eventually(lambda: asyncio.to_thread(free, shard_server, practice))
    await asyncio.gather(call, return_exceptions=True)
    assert await service.names(practice) == []
    assert pool_of(service).opened == 2
    await at_rest(pool_of(service))


def blocked(shard_server: ShardServer, practice: Practice) -> bool:
    query = "SELECT 1 FROM pg_stat_activity WHERE usename = %s AND wait_event_type = 'Lock'"
    return bool(shard_server.run(query, (practice.database,)))


def free(shard_server: ShardServer, practice: Practice) -> bool:
    return not blocked(shard_server, practice)


async def test_a_practice_whose_queue_is_full_is_told_to_come_later(
    tenant: TenantService, practice: Practice, shard_server: ShardServer
):
    async with running(settings_for(tenant, practice_queue=5, practice_wait_ms=300)) as service:
        await service.names(practice)
        with holding_table(shard_server, practice):
            answers = await asyncio.gather(*(service.call(practice, "GET") for _ in range(30)))
        assert Counter(answer.status_code for answer in answers) == {503: 30}
        assert {answer.json()["type"] for answer in answers} == {"/errors/practice-busy"}
        assert all("retry-after" in answer.headers for answer in answers)
        assert await service.names(practice) == []
        await at_rest(pool_of(service))


async def test_a_flooding_practice_takes_nothing_from_another(
    tenant: TenantService, practice: Practice, other_practice: Practice, shard_server: ShardServer
):
    async with running(settings_for(tenant, practice_wait_ms=5000)) as service:
        await service.names(practice)
        await service.add(other_practice, name="Calm")
        with holding_table(shard_server, practice):
            flood = [asyncio.create_task(service.call(practice, "GET")) for _ in range(400)]
            await eventually(lambda: pool_of(service).waiting > 100)
            for _ in range(20):
                assert await service.names(other_practice) == ["Calm"]
        answers = Counter(answer.status_code for answer in await asyncio.gather(*flood))
        assert set(answers) == {200, 503}
        assert shard_server.sessions(other_practice) == 1


async def test_more_practices_than_connections_are_all_served(tenant: TenantService, shard_server: ShardServer):
    practices = [shard_server.practice() for _ in range(30)]
    async with running(settings_for(tenant, shard_connections=3)) as service:
        for practice in practices:
            await service.add(practice, name=practice.id)
        calls = [practice for practice in practices for _ in range(5)]
        random.Random(3).shuffle(calls)
        lists = await asyncio.gather(*(service.names(practice) for practice in calls))
        assert lists == [[practice.id] for practice in calls]
        assert shard_server.sessions(*practices) <= 3
        await at_rest(pool_of(service))


class Crowd(NamedTuple):
    """300 practices on a server that allows 100 connections."""

    server: ShardServer
    practices: list[Practice]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    with running_postgres(tmp_path_factory.mktemp("crowd"), max_connections=100) as postgres:
        server = ShardServer(postgres).prepare()
        yield Crowd(server, server.practices(300))


async def test_300_practices_share_a_server_of_100_connections(tenant: TenantService, crowd: Crowd):
    """Never a 500, and the server is never full: whoever can't be served in time is told when to come again."""
    tenant.name("a", crowd.server.postgres, max_connections=100)
    async with running(settings_for(tenant)) as service:
        slots, most = pool_of(service).slots, 0

        async def active(practice: Practice) -> None:
            """Three calls, each after the last; one that is told to comes again."""
            nonlocal most
            served = 0
            while served < 3:
                answer = await service.call(practice, "GET")
                most = max(most, slots["a"].used)
                served += answer.status_code == 200
                if answer.status_code != 200:
                    assert (answer.status_code, answer.json()["type"]) == (503, "/errors/practice-busy")
                    await asyncio.sleep(int(answer.headers["retry-after"]))

        async with asyncio.timeout(60):
            await asyncio.gather(*(active(practice) for practice in crowd.practices))
        assert most == slots["a"].budget == 70
        assert crowd.server.sessions(*crowd.practices) <= 70
        await at_rest(pool_of(service))


async def test_300_practices_over_10_connections_get_an_answer_or_later_in_time(tenant: TenantService, crowd: Crowd):
    tenant.name("a", crowd.server.postgres, max_connections=100)
    settings = settings_for(tenant, shard_connections=10)
    async with running(settings) as service:
        now = asyncio.get_running_loop().time
        started, waited_s = now(), []

        async def once(practice: Practice) -> httpx.Response:
            answer = await service.call(practice, "GET")
            if answer.status_code == 503:
                waited_s.append(now() - started)
            return answer

        answers = await asyncio.gather(*(once(practice) for practice in crowd.practices))
        outcomes = Counter(answer.status_code for answer in answers)
        assert set(outcomes) <= {200, 503}
        assert outcomes[200] > 10
        assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)
        assert max(waited_s, default=0.0) < 2 * settings.practice_wait_ms / 1000
        for practice in crowd.practices[::10]:  # one after the other, each is served
            assert await service.names(practice) == []
        assert crowd.server.sessions(*crowd.practices) <= 10
        await at_rest(pool_of(service))


async def test_a_practice_without_calls_for_long_gives_its_connection_back(
    tenant: TenantService, practice: Practice, shard_server: ShardServer, monkeypatch
):
    monkeypatch.setattr("patient_service.shard_pool.EXPIRE_EVERY_S", 0.05)
    async with running(settings_for(tenant, idle_connection_s=1)) as service:
        await service.names(practice)
        await eventually(lambda: not shard_server.sessions(practice))
        assert not pool_of(service)._lanes
        assert await service.names(practice) == []


async def test_a_server_without_free_connections_is_answered_with_later(tenant: TenantService, tmp_path: Path):
    """Somebody else took them (SQLSTATE 53300): ours give way one by one, then the client is told."""
    with running_postgres(tmp_path, max_connections=60) as postgres, contextlib.ExitStack() as others:
        server = ShardServer(postgres).prepare()
        practices = [server.practice() for _ in range(8)]
        tenant.name("a", postgres, max_connections=60)
        for _ in range(52):
            others.enter_context(server.connection("postgres"))
        async with running(settings_for(tenant, practice_wait_ms=5000)) as service:
            answers: list[httpx.Response] = []
            for _ in range(2):
                answers += await asyncio.gather(*(service.call(practice, "GET") for practice in practices))
            assert {answer.status_code for answer in answers} <= {200, 503}
            assert {answer.json()["type"] for answer in answers if answer.status_code == 503} <= {
                "/errors/shard-server-full"
            }
            for practice in practices:  # one after the other there is always one to evict
                assert (await service.call(practice, "GET")).status_code == 200
            await at_rest(pool_of(service))


async def test_metrics_count_connections_by_server_and_never_name_a_practice(
    service: PatientClient, practice: Practice
):
    await service.names(practice)
    text = (await service.http.get("/metrics")).text
    assert 'gowebbo_shard_connections{server="a",state="idle"} 1.0' in text
    assert "gowebbo_shard_openings_total 1.0" in text
    assert practice.database not in text
    assert practice.id not in text


async def test_a_connection_that_is_lost_just_after_opening_is_replaced(
    service: PatientClient, practice: Practice, monkeypatch: pytest.MonkeyPatch
):
    open_really, lost = ShardOpener.open, []

    async def open_and_lose_once(opener: ShardOpener, server: Server, shard: Shard) -> ShardConnection:
        connection = await open_really(opener, server, shard)
        if not lost:
            lost.append(connection)
            connection.close()
        return connection

    monkeypatch.setattr(ShardOpener, "open", open_and_lose_once)
    assert await service.names(practice) == []
    assert pool_of(service).opened == 2
    await at_rest(pool_of(service))


async def test_a_connection_that_breaks_as_a_statement_is_sent_is_forgotten(
    service: PatientClient, practice: Practice, monkeypatch: pytest.MonkeyPatch
):
    """Were it kept as idle, making room for another practice would never come to an end."""
    await service.names(practice)
    begin_really = ShardConnection.begin

    def break_first(connection: ShardConnection, *call) -> None:
        monkeypatch.setattr(ShardConnection, "begin", begin_really)
        connection._raw.close()
        raise psycopg2.OperationalError

    monkeypatch.setattr(ShardConnection, "begin", break_first)
    assert (await service.call(practice, "GET")).status_code == 503
    assert (pool_of(service).slots["a"].used, pool_of(service).slots["a"].idle) == (0, 0)
    assert await service.names(practice) == []
    await at_rest(pool_of(service))


async def test_a_statement_that_cant_be_sent_costs_nobody_else_the_connection(
    service: PatientClient, practice: Practice, shard_server: ShardServer
):
    await service.names(practice)
    pool = pool_of(service)
    with holding_table(shard_server, practice):
        first = asyncio.create_task(service.names(practice))
        await eventually(lambda: not pool.slots["a"].idle)
        unsendable = asyncio.create_task(pool.fetch(practice.id, practice.shard, "SELECT %(missing)s", {}))
        behind = asyncio.create_task(service.names(practice))
        await eventually(lambda: pool.waiting == 2)
    assert await asyncio.gather(first, behind) == [[], []]
    with pytest.raises(KeyError):
        await unsendable
    assert pool.opened == 1
    await at_rest(pool)


async def test_closing_the_service_leaves_no_session(
    tenant: TenantService, practice: Practice, shard_server: ShardServer
):
    async with running(settings_for(tenant)) as service:
        await service.names(practice)
        assert shard_server.sessions(practice) == 1
    await eventually(lambda: not shard_server.sessions(practice))
