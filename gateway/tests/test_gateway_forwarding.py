"""A call goes through whole and signed, streamed both ways, and comes back as the service answered it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from gateway_stand import ADMIN, PERSON, PRACTICE, SESSION, SHARD, Stand, constant, eventually
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

pytestmark = pytest.mark.both_ways

PATIENTS = "/api/v1/patients"


def test_a_person_reaches_patient_service_with_a_signed_context(stand: Stand) -> None:
    answer = stand.client.get(f"{PATIENTS}?limit=5&cursor=a%2Bb", headers=stand.bearer())
    assert answer.status_code == 200
    [call] = stand.patient.calls
    assert call.target == f"{PATIENTS}?limit=5&cursor=a%2Bb"
    caller = call.caller
    assert (caller.practice_id, caller.shard, caller.user_id, caller.session_id, caller.role, caller.scope) == (
        PRACTICE,
        SHARD,
        PERSON,
        SESSION,
        "owner",
        "",
    )
    assert caller.client_address == "127.0.0.1"


def test_services_never_see_the_token(stand: Stand) -> None:
    stand.client.get(PATIENTS, headers=stand.bearer())
    assert stand.patient.calls[0].header("authorization") is None


def test_only_the_clients_own_headers_are_sent_on(stand: Stand) -> None:
    """An HTTP client library must not add its defaults."""
    request = f"GET {PATIENTS} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    stand.raw(f"{request}Authorization: {stand.bearer()['Authorization']}\r\nX-Own: 1\r\n\r\n".encode())
    names = {name for name, _ in stand.patient.calls[0].headers}
    signed = {b"x-practice-id", b"x-shard", b"x-user-id", b"x-session-id", b"x-role", b"x-scope"}
    assert names == signed | {b"x-client-address", b"x-gateway-signature", b"x-request-id", b"host", b"x-own"}


def test_a_public_route_carries_an_anonymous_caller(stand: Stand) -> None:
    answer = stand.client.post("/api/v1/practices/signup", json={"name": "x"}, headers={"Authorization": "Bearer junk"})
    assert answer.status_code == 200
    [call] = stand.auth.calls
    assert (call.caller.role, call.caller.practice_id, call.body) == ("anonymous", "", b'{"name":"x"}')


@pytest.mark.parametrize("path", ["/api/v1/admin/practices", "/api/v1/practices"])
def test_the_admin_has_no_practice(stand: Stand, path: str) -> None:
    assert stand.client.get(path, auth=ADMIN).status_code == 200
    caller = stand.auth.calls[0].caller
    assert (caller.role, caller.user_id, caller.practice_id, caller.shard) == ("admin", "admin", "", "")


def test_routes_without_patients_need_no_directory(stand: Stand) -> None:
    stand.tenant.answers["*", "/internal/shards"] = constant({}, status=500)
    stand.shards.clear()
    assert stand.client.post("/api/v1/auth/logout", headers=stand.bearer()).status_code == 200
    assert stand.auth.calls[0].caller.session_id == SESSION
    assert stand.auth.calls[0].caller.shard == ""


def test_status_body_and_headers_come_back_as_they_are(stand: Stand) -> None:
    async def answer(_: Request) -> Response:
        headers = {"Link": '</x>; rel="next"', "ETag": '"3"', "Retry-After": "7", "X-Request-Id": "spoofed-by-service"}
        return Response(b"\x00\xff bytes", status_code=418, headers=headers, media_type="application/octet-stream")

    stand.patient.answers["GET", PATIENTS] = answer
    got = stand.client.get(PATIENTS, headers={**stand.bearer(), "X-Request-Id": "client-chosen-1"})
    assert (got.status_code, got.content) == (418, b"\x00\xff bytes")
    assert got.headers["link"] == '</x>; rel="next"'
    assert (got.headers["etag"], got.headers["retry-after"]) == ('"3"', "7")
    assert got.headers.get_list("x-request-id") == ["client-chosen-1"]
    assert len(got.headers.get_list("date")) == 1
    assert "server" not in got.headers
    assert stand.patient.calls[0].header("x-request-id") == "client-chosen-1"


@pytest.mark.parametrize("path", [PATIENTS, "/livez", "/nothing", "/docs"])
def test_every_answer_carries_the_common_headers(stand: Stand, path: str) -> None:
    for headers in ({}, stand.bearer()):
        answer = stand.client.get(path, headers=headers)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert 8 <= len(answer.headers["x-request-id"]) <= 64


@pytest.mark.parametrize("sent", ["short", "a" * 65, "with space!", "ünïcödé-ids"])
def test_an_invalid_request_id_is_replaced(stand: Stand, sent: str) -> None:
    headers = {**stand.bearer(), "X-Request-Id": sent.encode()}
    answer = stand.client.get(PATIENTS, headers=headers)
    assert answer.headers["x-request-id"] != sent
    assert stand.patient.calls[0].header("x-request-id") == answer.headers["x-request-id"]


def test_a_service_may_set_its_own_cache_control(stand: Stand) -> None:
    stand.patient.answers["GET", PATIENTS] = constant({}, headers={"Cache-Control": "private, max-age=5"})
    answer = stand.client.get(PATIENTS, headers=stand.bearer())
    assert answer.headers.get_list("cache-control") == ["private, max-age=5"]


def test_an_empty_answer_stays_empty(stand: Stand) -> None:
    async def nothing(_: Request) -> Response:
        return Response(status_code=304)

    stand.patient.answers["GET", PATIENTS] = nothing
    answer = stand.client.get(PATIENTS, headers=stand.bearer())
    assert (answer.status_code, answer.content) == (304, b"")


@pytest.mark.parametrize("size", [0, 100, 500_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_head_is_the_get_without_its_body(stand: Stand, size: int, framing: str) -> None:
    """RFC 9110, 9.1 and 9.3.2. The connection stays usable: the next answer is the next request's."""

    async def answer(_: Request) -> Response:
        async def pieces():
            yield b"x" * size

        return StreamingResponse(pieces()) if framing == "chunked" else Response(b"x" * size, headers={"ETag": '"3"'})

    stand.patient.answers["GET", PATIENTS] = answer
    head = f"{PATIENTS}?limit=2 HTTP/1.1\r\nHost: x\r\nAuthorization: {stand.bearer()['Authorization']}\r\n"
    asked = f"HEAD {head}\r\nGET {head}Connection: close\r\n\r\n"
    first, _, rest = stand.raw(asked.encode()).partition(b"\r\n\r\n")
    second, _, body = rest.partition(b"\r\n\r\n")
    changing = (b"date:", b"x-request-id:", b"connection:", b"transfer-encoding:")
    heads = [[line for line in one.split(b"\r\n") if not line.startswith(changing)] for one in (first, second)]
    assert heads[0] == heads[1]
    assert heads[0][0] == b"HTTP/1.1 200 OK"
    assert body.count(b"x") == size
    assert [(call.method, call.target) for call in stand.patient.calls] == [("GET", f"{PATIENTS}?limit=2")] * 2


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/.well-known/jwks.json", "/docs", "/docs/static/favicon.png"])
def test_a_page_can_be_asked_for_its_head(stand: Stand, path: str) -> None:
    head, page = stand.client.head(path), stand.client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == page.headers["content-length"]


def test_a_refused_head_has_no_body(stand: Stand) -> None:
    answer = stand.client.head(PATIENTS)
    assert (answer.status_code, answer.content) == (401, b"")
    assert answer.headers["www-authenticate"]
    assert stand.client.head(PATIENTS, headers=stand.bearer()).status_code == 200


def test_an_answer_streams_before_it_is_complete(stand: Stand) -> None:
    """The first piece arrives while the service still holds the second one back."""
    released = []

    async def pieces():
        yield b"first"
        while not released:
            await _a_moment()
        yield b"second"

    async def answer(_: Request) -> Response:
        return StreamingResponse(pieces())

    stand.patient.answers["GET", PATIENTS] = answer
    with stand.client.stream("GET", PATIENTS, headers=stand.bearer()) as got:
        parts = got.iter_raw()
        assert next(parts) == b"first"
        released.append(1)
        assert b"".join(parts) == b"second"


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 300_000, 2 * 1024 * 1024])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_of_any_allowed_size_arrives_whole(stand: Stand, size: int, framing: str) -> None:
    body = b"0123456789abcdef" * (size // 16) + b"x" * (size % 16)
    content = (body[start : start + 10_000] for start in range(0, len(body), 10_000)) if framing == "chunked" else body
    headers = {**stand.bearer(), "Content-Type": "application/json"}
    answer = stand.client.post(PATIENTS, content=content, headers=headers)
    assert answer.status_code == 200
    assert stand.patient.calls[0].body == body


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(stand: Stand) -> None:
    token = stand.bearer()["Authorization"]
    head = f"POST {PATIENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Type: application/json\r\n"
    received = stand.raw(f"{head}Content-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n{{}}".encode())
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
    assert stand.patient.calls[0].header("expect") is None


def test_many_calls_share_connections_and_answers_never_mix(stand: Stand) -> None:
    async def echo(request: Request) -> Response:
        return Response(request.scope["query_string"])

    stand.patient.answers["GET", PATIENTS] = echo
    headers = stand.bearer()

    def ask(number: int) -> bool:
        return stand.client.get(f"{PATIENTS}?n={number}", headers=headers).content == f"n={number}".encode()

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(400)))


def test_the_shard_is_asked_for_once(stand: Stand) -> None:
    practice = "0199bbbb-0000-7000-8000-000000000001"
    stand.shards[practice] = "a/shard_aaaaaaaaaaaaaaaa"
    headers = stand.bearer(practice=practice)
    stand.directory.forget(practice)
    for _ in range(3):
        assert stand.client.get(PATIENTS, headers=headers).status_code == 200
    assert stand.tenant.seen.count(f"/internal/shards/{practice}") == 1
    assert {call.caller.shard for call in stand.patient.calls} == {"a/shard_aaaaaaaaaaaaaaaa"}


def test_metrics_are_not_public(stand: Stand) -> None:
    assert stand.client.get("/metrics").status_code == 404
    stand.client.get(PATIENTS, headers=stand.bearer())
    text = eventually(stand.gateway.metrics.text).decode()
    assert 'gowebbo_requests_total{method="GET",route="/api/v1/patients",status="200"}' in text


async def _a_moment() -> None:
    await asyncio.sleep(0.01)
