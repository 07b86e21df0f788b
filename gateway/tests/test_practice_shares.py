"""One practice's flood, and bodies that dawdle, leave room for everybody else."""

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from gateway_stand import PRACTICE, Stand, eventually
from starlette.responses import Response

from gateway.exceptions import PracticeOverloadedError
from gateway.shares import PracticeShares

PATIENTS = "/api/v1/patients"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_a_practice_gets_its_share_and_not_more() -> None:
    shares = PracticeShares(2, wait_s=0.01)
    assert [shares.enter("a") for _ in range(3)] == [True, True, False]
    with pytest.raises(PracticeOverloadedError):
        await shares.wait("a")
    assert shares.enter("b")
    shares.leave("a")
    assert shares.enter("a")


@pytest.mark.anyio
async def test_who_waits_longest_comes_next() -> None:
    shares, came = PracticeShares(1), []

    async def call(number: int) -> None:
        await shares.wait("a")
        came.append(number)
        shares.leave("a")

    assert shares.enter("a")
    calls = [asyncio.create_task(call(number)) for number in range(5)]
    await asyncio.sleep(0)
    shares.leave("a")
    await asyncio.gather(*calls)
    assert came == [0, 1, 2, 3, 4]
    assert not shares._under_way
    assert not shares._waiting


@pytest.mark.anyio
@pytest.mark.parametrize("is_given_first", [True, False])
async def test_who_goes_away_while_waiting_keeps_no_place(*, is_given_first: bool) -> None:
    shares = PracticeShares(1)
    assert shares.enter("a")
    gone, stays = (asyncio.create_task(shares.wait("a")) for _ in range(2))
    await asyncio.sleep(0)
    if is_given_first:
        shares.leave("a")
    gone.cancel()
    if not is_given_first:
        shares.leave("a")
    await asyncio.gather(gone, stays, return_exceptions=True)
    assert (gone.cancelled(), stays.exception()) == (True, None)
    assert not shares.enter("a")
    shares.leave("a")
    assert not shares._under_way
    assert not shares._waiting


@pytest.mark.anyio
async def test_calls_that_come_and_go_at_random_leave_nothing_behind() -> None:
    shares, most, now = PracticeShares(3, wait_s=0.002), 0, 0

    async def call() -> None:
        nonlocal most, now
        if not shares.enter("a"):
            await shares.wait("a")
        now += 1
        most = max(most, now)
        try:
            await asyncio.sleep(random.uniform(0, 0.006))
        finally:
            now -= 1
            shares.leave("a")

    calls = []
    for _ in range(500):
        calls.append(asyncio.create_task(call()))
        if random.random() < 0.3:
            random.choice(calls).cancel()
        await asyncio.sleep(random.choice([0, 0, 0.0005]))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(one) for one in outcomes} == {type(None), asyncio.CancelledError, PracticeOverloadedError}
    assert most == 3
    assert not shares._under_way
    assert not shares._waiting


def test_callers_without_a_practice_are_not_counted() -> None:
    shares = PracticeShares(1)
    assert all(shares.enter("") for _ in range(10))


def test_nothing_is_kept_of_practices_that_are_done() -> None:
    shares = PracticeShares(1)
    for number in range(100):
        shares.enter(str(number))
        shares.leave(str(number))
    assert not shares._under_way


def test_a_flood_of_one_practice_waits_and_is_refused_others_are_served(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand.gateway.app._forwarder._shares, "_limit", 5)
    released = threading.Event()

    async def hang_for_one(request) -> Response:
        while request.headers["x-practice-id"] == PRACTICE and not released.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return Response(b"{}")

    stand.patient.answers["GET", PATIENTS] = hang_for_one
    other = "0191b7a2-0000-7000-8000-00000000000b"
    stand.shards[other] = "a/shard_0123456789"
    with ThreadPoolExecutor(20) as clients:
        flood = [clients.submit(stand.client.get, PATIENTS, headers=stand.bearer()) for _ in range(20)]
        assert stand.client.get(PATIENTS, headers=stand.bearer(practice=other)).status_code == 200
        eventually(lambda: sum(one.done() for one in flood) == 15)
        more = [clients.submit(stand.client.get, PATIENTS, headers=stand.bearer()) for _ in range(5)]
        released.set()
    statuses = sorted(one.result().status_code for one in flood)
    assert statuses == [200] * 5 + [503] * 15
    assert all(one.result().headers.get("Retry-After") for one in flood if one.result().status_code == 503)
    assert [one.result().status_code for one in more] == [200] * 5


@pytest.mark.parametrize("path", ["/api/v1/practices/login", "/api/v1/practices/signup"])
@pytest.mark.parametrize("framing", ["Content-Length: 200000", "Transfer-Encoding: chunked"])
def test_an_anonymous_body_that_may_dawdle_never_reaches_a_service(stand: Stand, path: str, framing: str) -> None:
    """Else each would hold a connection to the service for as long as its client likes."""
    part = b"x" * 70_000
    body = b"%x\r\n%b\r\n" % (len(part), part) if "chunked" in framing else part
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    answer = stand.raw(head.encode() + body)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert not stand.auth.calls
