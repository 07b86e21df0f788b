"""Calls that go the short way are seen to go it, and nothing that ends a person's right is overlooked on it."""

import asyncio
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest
from gateway_stand import PRACTICE, Stand, eventually
from starlette.responses import Response

from gateway import edge
from gateway.front import Front
from gateway.short_calls import ShortCalls
from shared.whole_request import WholeRequest

PATIENTS = "/api/v1/patients"


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How each whole request went: recognised, parsed or long."""
    ways = []
    begin = ShortCalls.begin

    def noting(calls: ShortCalls, request: WholeRequest, long_way: Front) -> bool:
        way = "recognised" if request.known else "parsed"
        begun = begin(calls, request, long_way)
        ways.append(way if begun else "long")
        return begun

    monkeypatch.setattr(ShortCalls, "begin", noting)
    return ways


def test_a_first_call_goes_the_long_way_the_second_a_short_one_and_the_third_is_recognised(
    stand: Stand, ways: list[str]
) -> None:
    headers = stand.bearer()
    answers = [stand.client.get(PATIENTS, headers=headers) for _ in range(3)]
    assert ways == ["long", "parsed", "recognised"]
    assert [answer.status_code for answer in answers] == [200] * 3
    first, *others = ({**answer.headers, "x-request-id": "", "date": ""} for answer in answers)
    assert all(other == first for other in others)
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3
    seen = [{**dict(call.headers), b"x-request-id": b"", b"x-gateway-signature": b""} for call in stand.patient.calls]
    assert seen[0] == seen[1] == seen[2]


def test_a_body_goes_along_and_a_clients_own_request_id(stand: Stand, ways: list[str]) -> None:
    headers = {**stand.bearer(), "Content-Type": "application/json", "X-Request-Id": "clients-own-id"}
    for body in (b'{"a":1}', b'{"a":2}', b'{"a":3}'):
        answer = stand.client.post(PATIENTS, content=body, headers=headers)
        assert answer.json()["echo"] == 7
        assert answer.headers["x-request-id"] == "clients-own-id"
    assert ways[0] == "long"
    assert len(ways) == 3
    assert set(ways[1:]) <= {"parsed", "recognised"}  # whether head and body arrive together is the system's matter
    assert [call.body for call in stand.patient.calls] == [b'{"a":1}', b'{"a":2}', b'{"a":3}']
    assert {call.header("x-request-id") for call in stand.patient.calls} == {"clients-own-id"}


def test_all_calls_are_counted_whichever_way_they_go(make_stand, ways: list[str]) -> None:
    stand = make_stand()
    headers = stand.bearer()
    ways.clear()
    for _ in range(4):
        stand.client.get(PATIENTS, headers=headers)
    assert ways == ["long", "parsed", "recognised", "recognised"]
    counted = 'gowebbo_requests_total{method="GET",route="/api/v1/patients",status="200"} 4.0'
    eventually(lambda: counted in stand.gateway.metrics.text().decode())


def _recognised(stand: Stand, ways: list[str], **claims: object) -> dict[str, str]:
    """Headers that are recognised."""
    headers = stand.bearer(**claims)
    for _ in range(3):
        assert stand.client.get(PATIENTS, headers=headers).status_code == 200
    assert ways[-1] == "recognised"
    return headers


def test_a_session_that_ends_is_refused_although_its_header_lines_are_recognised(stand: Stand, ways) -> None:
    session = "0199aaaa-0000-7000-8000-0000000000a1"
    headers = _recognised(stand, ways, sid=session)
    stand.revoked.append(session)
    eventually(lambda: stand.client.get(PATIENTS, headers=headers).status_code == 401)
    assert ways[-1] == "long"


def test_a_token_that_expires_is_refused_although_it_is_recognised(stand: Stand, ways) -> None:
    headers = _recognised(stand, ways, exp=int(time.time()) + 2)
    eventually(lambda: stand.client.get(PATIENTS, headers=headers).status_code == 401)


def test_a_suspended_practice_is_refused_although_it_is_recognised(make_stand, ways) -> None:
    stand = make_stand()
    headers = _recognised(stand, ways)
    stand.suspensions.append(("practice-suspended", PRACTICE))
    eventually(lambda: stand.client.get(PATIENTS, headers=headers).status_code == 403)


def test_only_what_may_go_it_does(stand: Stand, ways: list[str]) -> None:
    headers = _recognised(stand, ways)
    ways.clear()
    stand.client.get("/api/v1/staff", headers=headers)
    stand.client.get(f"{PATIENTS}/%41", headers=headers)
    stand.client.head(PATIENTS, headers=headers)
    stand.client.post(PATIENTS, content=b"x" * 70_000, headers={**headers, "Content-Type": "application/json"})
    assert set(ways) <= {"long"}


def test_an_answer_that_is_large_or_has_a_strange_status_comes_all_the_same(stand: Stand, ways: list[str]) -> None:
    headers = _recognised(stand, ways)

    async def large(_) -> Response:
        return Response(b"x" * 3_000_000)

    async def strange(_) -> Response:
        return Response(b"x", status_code=299)

    stand.patient.answers["GET", PATIENTS] = large
    assert len(stand.client.get(PATIENTS, headers=headers).content) == 3_000_000
    stand.patient.answers["GET", PATIENTS] = strange
    assert stand.client.get(PATIENTS, headers=headers).status_code == 299


def test_a_recognised_request_ends_the_wait_for_a_head(make_stand, ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the first one of a connection."""
    monkeypatch.setattr(edge, "HEAD_TIMEOUT_S", 0.3)
    stand = make_stand()
    token = stand.bearer()["Authorization"]
    request = f"GET {PATIENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode()
    for number in range(4):
        with closing(socket.create_connection(("127.0.0.1", stand.port), timeout=5)) as connection:
            connection.sendall(request)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            if number == 3:
                assert ways[-1] == "recognised"
                time.sleep(0.6)
                connection.sendall(request)
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_many_recognised_requests_on_a_connection_never_look_like_endless_framing(
    make_stand, ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "MAX_FRAMING_BYTES", 2000)
    stand = make_stand()
    headers = _recognised(stand, ways)
    for _ in range(20):
        assert stand.client.get(PATIENTS, headers=headers).status_code == 200
    assert ways[-20:] == ["recognised"] * 20


def test_what_was_under_way_when_a_service_died_is_never_called_untried(make_stand, ways) -> None:
    """Seven of them after the fifth failure, which opens the circuit: 503 would say that nothing was executed."""
    stand = make_stand()
    headers = {**_recognised(stand, ways), "Content-Type": "application/json"}

    async def slow(_) -> Response:
        await asyncio.sleep(0.2)
        return Response(b"{}")

    async def hang(_) -> Response:
        await asyncio.sleep(30)
        return Response(b"{}")

    clients = [httpx.Client(base_url=stand.url, timeout=30) for _ in range(12)]
    with ThreadPoolExecutor(len(clients)) as threads:

        def ask(method: str) -> list[Future[httpx.Response]]:
            return [threads.submit(one.request, method, PATIENTS, headers=headers, content=b"{}") for one in clients]

        stand.patient.answers["POST", PATIENTS] = slow
        assert {one.result().status_code for one in ask("POST")} == {200}  # as many connections
        stand.patient.answers["POST", PATIENTS] = hang
        stand.patient.calls.clear()
        ways.clear()
        begun = ask("POST")
        eventually(lambda: len(stand.patient.calls) == len(clients))
        assert "long" not in ways
        stand.cut_patient_service()
        assert [(one.result().status_code, one.result().json()["type"]) for one in begun] == [
            (502, "/errors/upstream-failed")
        ] * len(clients)
    for one in clients:
        one.close()
    assert len(stand.patient.calls) == len(clients), "executed once each"


def test_a_call_that_is_carried_on_has_no_more_time_than_another(make_stand, ways) -> None:
    stand = make_stand(call_timeout_s=1.5)
    headers = _recognised(stand, ways)

    async def hang(_) -> Response:
        await asyncio.sleep(30)
        return Response(b"{}")

    stand.patient.answers["GET", PATIENTS] = hang
    stand.patient.calls.clear()
    with ThreadPoolExecutor(1) as threads:
        began = time.monotonic()
        answer = threads.submit(stand.client.get, PATIENTS, headers=headers)
        eventually(lambda: len(stand.patient.calls) == 1)
        time.sleep(1)
        stand.cut_patient_service()
        eventually(lambda: len(stand.patient.calls) == 2)
        assert answer.result().status_code == 504
    assert time.monotonic() - began < 1 + 1.5, "the second try began after 1 s"
