"""One practice's flood, and bodies that dawdle, leave room for everybody else."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from gateway_stand import PRACTICE, Stand, eventually
from starlette.responses import Response

from gateway.exceptions import PracticeOverloadedError
from gateway.shares import PracticeShares

PATIENTS = "/api/v1/patients"


def test_a_practice_gets_its_share_and_not_more() -> None:
    shares = PracticeShares(2)
    shares.enter("a")
    shares.enter("a")
    with pytest.raises(PracticeOverloadedError):
        shares.enter("a")
    shares.enter("b")
    shares.leave("a")
    shares.enter("a")


def test_callers_without_a_practice_are_not_counted() -> None:
    shares = PracticeShares(1)
    for _ in range(10):
        shares.enter("")


def test_nothing_is_kept_of_practices_that_are_done() -> None:
    shares = PracticeShares(1)
    for number in range(100):
        shares.enter(str(number))
        shares.leave(str(number))
    assert not shares._under_way


def test_a_flood_of_one_practice_is_refused_others_are_served(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
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
        eventually(lambda: sum(one.done() for one in flood) == 15)
        assert stand.client.get(PATIENTS, headers=stand.bearer(practice=other)).status_code == 200
        released.set()
    statuses = sorted(one.result().status_code for one in flood)
    assert statuses == [200] * 5 + [503] * 15
    assert all(one.result().headers.get("Retry-After") for one in flood if one.result().status_code == 503)


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
