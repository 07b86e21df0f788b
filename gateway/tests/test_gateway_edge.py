"""Over raw sockets: what isn't HTTP, isn't a known address, or is too large, is answered here and goes nowhere."""

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time

import pytest
from gateway_stand import Stand, answers_in, eventually, nothing_was_forwarded
from starlette.responses import Response

from gateway import edge
from gateway.routes import Service

pytestmark = pytest.mark.both_ways

PATIENTS = "/api/v1/patients"
JSON = "Content-Type: application/json\r\n"


TARGETS = [
    "/internal/secrets",
    "//internal/secrets",
    "/internal//shards",
    "/internal/../internal/shards/x",
    "/api/../internal/secrets",
    "/api/v1/../../internal/secrets",
    "/api/v1/patients/../../../internal/secrets",
    "/api/v1/patients/..%2f..%2f..%2finternal/secrets",
    "/api/v1/patients/%2e%2e/%2e%2e/internal",
    "/api/v1/patients/%2e%2e%2finternal",
    "/api/v1/patients/..",
    "/api/v1/patients/.",
    "/api/v1/patients/%2e",
    "/api/v1/patients/%00",
    "/api/v1/patients/%5c..%5cinternal",
    "/api/v1/patients/..\\internal",
    "/api/v1/patients/..;/internal",
    "/api/v1/patients/x/restore/../../../internal",
    "/api/v1/patients//x",
    "/api/v1/patients/",
    "/api/v1/patients/x/",
    "/api/v1//patients",
    "//api/v1/patients",
    "/./api/v1/patients",
    "/API/v1/patients",
    "/api/v1/patients%20",
    "/api/v1/patients%2f",
    "/%61pi/v1/patients",
    "/api/v1/%70atients",
    "/api%2fv1%2fpatients",
    "/api/v1/patients;a=b",
    "/api/v1/patients%3f",
    "/api/v1/patients%23",
    "/internal%2fsecrets",
    "/%69nternal/changes",
    "/INTERNAL/secrets",
    "/livez/../internal/secrets",
    "/docs/static/../../internal/secrets",
    "/docs/static/..%2f..%2finternal",
    "/docs/static/%2e%2e/core.py",
    "http://patient-service/internal/secrets",
    "http://127.0.0.1/internal/secrets",
    "http://x@evil/internal/secrets",
    "http:///internal/secrets",
    "ftp://evil/internal/secrets",
    "http://evil",
    "evil",
    "*",
    "",
    "?/api/v1/patients",
    "#/api/v1/patients",
]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_confused_path_reaches_no_service(stand: Stand, method: str) -> None:
    token = stand.bearer()["Authorization"]
    allowed = {400, 404, 405}
    for target in TARGETS:
        stand.raw(_request(method, target, token))
        answer = stand.raw(_request(method, target, token))
        assert answers_in(answer), target
        assert set(answers_in(answer)) <= allowed, (target, answer[:200])
    assert nothing_was_forwarded(stand)


def _request(method: str, target: str, token: str, more: str = "") -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {token}\r\n{more}\r\n"
    return head.encode("latin-1")


@pytest.mark.parametrize("host", ["patient-service", "127.0.0.1:1", "internal", "a, b", "[::1]", "evil/internal/"])
@pytest.mark.parametrize("target", [PATIENTS, f"http://evil{PATIENTS}", f"http://evil{PATIENTS}?a=http://x/internal"])
def test_neither_host_nor_absolute_form_decides_where_a_call_goes(stand: Stand, host: str, target: str) -> None:
    token = stand.bearer()["Authorization"]
    request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: {token}\r\n\r\n"
    assert answers_in(stand.raw(request.encode())) == [200]
    assert [call.target.split("?")[0] for call in stand.patient.calls] == [PATIENTS]
    assert stand.patient.calls[0].header("host") == "service"


@pytest.mark.parametrize(
    "headers",
    [
        "",
        "Host: x\r\nHost: x\r\n",
        "Host: x\r\nHost: y\r\n",
        "Host: x\r\nTransfer-Encoding: gzip, chunked\r\n",
        "Host: x\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
    ],
)
def test_a_head_that_says_too_little_or_too_much_is_refused(stand: Stand, headers: str) -> None:
    token = stand.bearer()["Authorization"]
    request = f"POST {PATIENTS} HTTP/1.1\r\n{headers}Authorization: {token}\r\n\r\n"
    _assert_refused(stand.raw(request.encode()), 400, "/errors/malformed-request")
    assert nothing_was_forwarded(stand)


SMUGGLED = "GET /internal/secrets HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0", "9.9"])
def test_other_versions_of_http_are_refused(stand: Stand, version: str) -> None:
    _assert_refused(
        stand.raw(f"GET /livez HTTP/{version}\r\nHost: x\r\n\r\n".encode()), 400, "/errors/malformed-request"
    )


def test_a_body_that_breaks_while_it_streams_to_a_service_is_400_and_cuts_the_call(stand: Stand) -> None:
    token = stand.bearer()["Authorization"]
    head = f"POST {PATIENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nTransfer-Encoding: chunked\r\n"
    with socket.create_connection(("127.0.0.1", stand.port), timeout=10) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n20000\r\n{'x' * 0x20000}\r\n".encode())
        eventually(lambda: PATIENTS in stand.patient.seen)
        connection.sendall(b"zz\r\n")
        received = b""
        while part := connection.recv(10_000):
            received += part
    _assert_refused(received, 400, "/errors/malformed-request")
    [line] = stand.gateway.app._forwarder._lines[Service.PATIENT]
    eventually(lambda: line._upstream.slots_in_use == 0)
    assert stand.patient.calls == []


def test_pipelined_requests_are_answered_in_order(stand: Stand) -> None:
    token = stand.bearer()["Authorization"]
    requests = [f"GET {PATIENTS}?n={n} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n" for n in range(3)]
    requests.append("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answers_in(stand.raw("".join(requests).encode())) == [200, 200, 200, 200]
    assert [call.target for call in stand.patient.calls] == [f"{PATIENTS}?n={n}" for n in range(3)]


def test_no_more_than_so_many_requests_wait_behind_one_another(stand: Stand) -> None:
    """Each is held in memory: one client that sends them without end would take all there is."""
    answered = asyncio.Event()

    async def held(_):
        await answered.wait()
        return Response(b"{}")

    stand.patient.answers["GET", PATIENTS] = held
    request = _request("GET", PATIENTS, stand.bearer()["Authorization"]).replace(b"Connection: close\r\n", b"")
    with socket.create_connection(("127.0.0.1", stand.port), timeout=20) as connection:
        sending = threading.Thread(target=_send, args=(connection, request * 2000))
        sending.start()
        eventually(lambda: stand.patient.calls)
        [protocol] = [one for one in _protocols(stand) if one.client == connection.getsockname()]
        time.sleep(0.5)  # more is on its way than may wait
        stand._loop.call_soon_threadsafe(answered.set)
        received, most = b"", 0
        with contextlib.suppress(ConnectionError):  # what it hasn't read when it closes may cost us the last answers
            while part := connection.recv(10_000):
                received += part
                most = max(most, len(protocol.pipeline))
        sending.join()
    assert 0 < most <= edge.MAX_PIPELINED
    assert received.count(b"HTTP/1.1 200 ") < 2000
    assert set(answers_in(received[: received.rindex(b"HTTP/1.1 ")])) == {200}


def test_a_request_that_begins_during_an_answer_does_not_end_a_later_one(make_stand) -> None:
    """The wait for the next request must be over when that has begun already, however little of it is here."""
    stand = make_stand()
    stand._servers["gateway"][0].config.timeout_keep_alive = 0.6

    async def slow(_):
        await asyncio.sleep(0.3)
        return Response(b"{}")

    stand.patient.answers["GET", PATIENTS] = slow
    request = _request("GET", PATIENTS, stand.bearer()["Authorization"]).replace(b"Connection: close\r\n", b"")
    with socket.create_connection(("127.0.0.1", stand.port), timeout=10) as connection:
        connection.sendall(request)
        eventually(lambda: len(stand.patient.calls) == 1)
        connection.sendall(request[:2])
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
        time.sleep(0.1)
        connection.sendall(request[2:])
        for _ in range(4):
            assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
            connection.sendall(request)
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")


def test_a_large_body_does_not_count_as_the_next_requests_head(stand: Stand) -> None:
    token = stand.bearer()["Authorization"]
    body = b"x" * 250_000
    post = _request("POST", PATIENTS, token, f"{JSON}Content-Length: {len(body)}\r\n").replace(
        b"Connection: close\r\n", b""
    )
    following = _request("GET", PATIENTS, token)
    with socket.create_connection(("127.0.0.1", stand.port), timeout=10) as connection:
        connection.sendall(post + body + following[:10])
        received = connection.recv(10_000)
        connection.sendall(following[10:])
        while part := connection.recv(10_000):
            received += part
    assert answers_in(received) == [200, 200]


def test_http_1_0_has_no_100_continue(stand: Stand) -> None:
    """Such a client would take it for its answer (RFC 9110, 10.1.1)."""
    token = stand.bearer()["Authorization"]
    request = _request("POST", PATIENTS, token, f"{JSON}Expect: 100-continue\r\nContent-Length: 2\r\n")
    received = stand.raw(request.replace(b"HTTP/1.1", b"HTTP/1.0") + b"{}")
    assert answers_in(received) == [200]


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "OPTIONS", "PROPFIND", "PURGE"])
def test_other_methods_are_not_forwarded(stand: Stand, method: str) -> None:
    token = stand.bearer()["Authorization"]
    [status] = answers_in(stand.raw(_request(method, PATIENTS, token)))
    assert status in {400, 405}
    assert nothing_was_forwarded(stand)


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "TLS/1.0"])
def test_an_upgrade_is_ignored_and_nothing_after_it_is_read(stand: Stand, protocol: str) -> None:
    token = stand.bearer()["Authorization"]
    more = f"Connection: Upgrade\r\nUpgrade: {protocol}\r\n"
    raw = stand.raw(_request("GET", PATIENTS, token, more).replace(b"Connection: close\r\n", b"") + SMUGGLED.encode())
    assert answers_in(raw) == [200]
    [call] = stand.patient.calls
    assert call.header("upgrade") is None
    with_body = _request("POST", PATIENTS, token, f"{more}Content-Length: 2\r\n") + b"{}"
    _assert_refused(stand.raw(with_body), 400, "/errors/malformed-request")


def test_trailers_are_not_headers(stand: Stand) -> None:
    token = stand.bearer()["Authorization"]
    head = f"POST {PATIENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nTransfer-Encoding: chunked\r\n"
    trailers = "X-Trailer: 1\r\nX-Shard: evil\r\nX-Request-Id: from-a-trailer\r\n"
    body = f"Content-Type: application/json\r\nConnection: close\r\n\r\n2\r\n{{}}\r\n0\r\n{trailers}\r\n"
    assert answers_in(stand.raw((head + body).encode())) == [200]
    [call] = stand.patient.calls
    assert (call.body, call.header("x-trailer")) == (b"{}", None)
    assert call.header("x-request-id") != "from-a-trailer"


@pytest.mark.parametrize("start", ["0\r\nX-Endless: ", "1;endless="], ids=["trailer", "chunk extension"])
def test_endless_framing_of_a_body_is_given_up(stand: Stand, start: str) -> None:
    token = stand.bearer()["Authorization"]
    head = f"POST {PATIENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = stand.raw(f"{head}{start}".encode() + b"a" * 5_000_000)
    assert set(answers_in(answer)) <= {400}  # none if the rest of it comes too fast to read the answer
    assert stand.patient.calls == []


def test_a_long_address_is_414(stand: Stand) -> None:
    answer = stand.raw(f"GET {PATIENTS}?{'a' * edge.MAX_URL_BYTES} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    _assert_refused(answer, 414, "/errors/uri-too-long")


def test_an_address_below_the_limit_passes(stand: Stand) -> None:
    query = "a" * (edge.MAX_URL_BYTES - len(PATIENTS) - 1)
    assert stand.client.get(f"{PATIENTS}?{query}", headers=stand.bearer()).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        "".join(f"X-{n}: 1\r\n" for n in range(201)),
        "".join(f"X-{n}: {'a' * 1000}\r\n" for n in range(70)),
        f"X-One: {'a' * 65536}\r\n",
    ],
    ids=["201 headers", "70 KB in many", "64 KB in one"],
)
def test_too_large_a_head_is_431(stand: Stand, headers: str) -> None:
    answer = stand.raw(f"GET {PATIENTS} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    _assert_refused(answer, 431, "/errors/headers-too-large")
    assert stand.patient.calls == []


def test_an_endless_header_is_431_before_it_ends(stand: Stand) -> None:
    answer = stand.raw(b"GET / HTTP/1.1\r\nX-Endless: " + b"a" * 3_000_000)
    _assert_refused(answer, 431, "/errors/headers-too-large")


def test_200_headers_of_60_kb_pass(stand: Stand) -> None:
    headers = {**stand.bearer(), **{f"X-{n}": "a" * 280 for n in range(190)}}
    assert stand.client.get(PATIENTS, headers=headers).status_code == 200
    assert stand.patient.calls[0].header("x-189") == "a" * 280


def test_what_is_no_http_is_400_in_the_products_form(stand: Stand) -> None:
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello tls\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
    ):
        _assert_refused(stand.raw(data), 400, "/errors/malformed-request")


def _assert_refused(raw: bytes, status: int, error: str) -> None:
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    lines = head.lower().split(b"\r\n")
    assert b"connection: close" in lines
    assert b"cache-control: no-store" in lines
    document = json.loads(body)
    assert (document["success"], document["status"], document["type"]) == (False, status, error)
    assert f"x-request-id: {document['instance']}".encode() in lines


def test_a_broken_second_request_does_not_answer_for_the_first(stand: Stand) -> None:
    """The first one is still being answered when garbage arrives: both are answered, in their order."""

    async def slow(_):
        await asyncio.sleep(0.5)
        return Response(b"late")

    stand.patient.answers["GET", PATIENTS] = slow
    token = stand.bearer()["Authorization"]
    answer = stand.raw(f"GET {PATIENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\nGARBAGE\r\n\r\n".encode())
    first, _, rest = answer.partition(b"late")
    assert first.startswith(b"HTTP/1.1 200 ")
    _assert_refused(rest, 400, "/errors/malformed-request")


@pytest.mark.parametrize(
    "sent", [b"", b"GET ", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "], ids=["nothing", "a word", "a header"]
)
def test_a_head_that_never_ends_is_given_up(stand: Stand, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "HEAD_TIMEOUT_S", 0.3)
    _assert_refused(stand.raw(sent), 408, "/errors/request-timeout")


def test_empty_lines_do_not_keep_a_connection_without_requests(
    make_stand,
) -> None:
    """They stand before a request (RFC 9112, 2.2), but begin none: only one ends the wait for the next."""
    stand = make_stand()
    stand._servers["gateway"][0].config.timeout_keep_alive = 0.3
    with socket.create_connection(("127.0.0.1", stand.port), timeout=10) as connection:
        for _ in range(2):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\r\n")
        assert connection.recv(10_000) == b""


def test_a_client_that_is_gone_is_not_waited_for(make_stand) -> None:
    """A timer of a minute and a quarter would hold on to each connection that was reset."""
    stand = make_stand()
    protocols = stand._servers["gateway"][0].server_state.connections
    with socket.create_connection(("127.0.0.1", stand.port), timeout=10) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
        name = connection.getsockname()
        [protocol] = [one for one in protocols if one.client == name]
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # resets
    eventually(lambda: protocol not in protocols)
    assert protocol.timeout_keep_alive_task is None


def test_500_slow_connections_are_closed_while_honest_clients_are_served(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They say nothing, half a head, or send half a body that the route refuses without it."""
    monkeypatch.setattr(edge, "HEAD_TIMEOUT_S", 1.0)
    monkeypatch.setattr(edge, "LINGER_S", 1.0)
    sent = [b"", b"GET / HTT", b"GET / HTTP/1.1\r\nX: ", b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1"]
    slow = [socket.create_connection(("127.0.0.1", stand.port), timeout=20) for _ in range(500)]
    try:
        for number, connection in enumerate(slow):
            connection.sendall(sent[number % len(sent)])
        headers = stand.bearer()
        for _ in range(50):
            assert stand.client.get(PATIENTS, headers=headers).status_code == 200
        for number, connection in enumerate(slow):
            received = b""
            while part := connection.recv(10_000):  # ends when the gateway closes
                received += part
            assert answers_in(received) == [404 if number % len(sent) == 3 else 408]
    finally:
        for connection in slow:
            connection.close()
    assert stand.client.get(PATIENTS, headers=stand.bearer()).status_code == 200


def test_dripping_bytes_does_not_keep_a_head_alive(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "HEAD_TIMEOUT_S", 0.5)
    with socket.create_connection(("127.0.0.1", stand.port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        deadline = time.monotonic() + 10

        def closed() -> bool:
            try:
                connection.sendall(b"X: y\r\n")
                connection.settimeout(0.05)
                return bool(connection.recv(1000))
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        eventually(closed)
        assert time.monotonic() < deadline


def test_a_body_that_never_ends_after_its_answer_is_given_up(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "LINGER_S", 0.3)
    with socket.create_connection(("127.0.0.1", stand.port), timeout=10) as connection:
        connection.sendall(f"POST {PATIENTS} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n1".encode())
        assert connection.recv(10_000).startswith(b"HTTP/1.1 401 ")
        connection.sendall(b"2")
        assert connection.recv(10_000) == b""


def test_a_client_that_takes_nothing_of_its_answer_is_cut_off(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "STUCK_S", 0.3)

    async def large(_):
        return Response(b"x" * 8_000_000)

    stand.patient.answers["GET", PATIENTS] = large
    token = stand.bearer()["Authorization"]
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", stand.port))
        connection.sendall(f"GET {PATIENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
        time.sleep(2)  # what is tested is that nobody reads meanwhile
        taken = 0
        try:
            while part := connection.recv(65_536):
                taken += len(part)
        except ConnectionError:
            pass
    assert 0 < taken < 8_000_000


def test_a_client_that_takes_nothing_of_its_last_answer_is_cut_off(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Little is left to send, so that nobody waits for it, but the connection can't be closed before that is taken."""
    monkeypatch.setattr(edge, "STUCK_S", 0.3)

    async def answer(_):
        return Response(b"x" * 60_000)

    stand.patient.answers["GET", PATIENTS] = answer
    request = _request("GET", PATIENTS, stand.bearer()["Authorization"])
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", stand.port))
        eventually(lambda: connection.getsockname() in {one.client for one in _protocols(stand)})
        [protocol] = [one for one in _protocols(stand) if one.client == connection.getsockname()]
        with socket.fromfd(protocol.transport.get_extra_info("socket").fileno(), socket.AF_INET, 0) as there:
            there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection.sendall(request)
        eventually(protocol.transport.is_closing)
        assert protocol.transport.get_write_buffer_size() > 0
        eventually(lambda: protocol not in _protocols(stand))


def _send(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):  # closed before it has taken all
        connection.sendall(data)


def _protocols(stand: Stand):
    return tuple(stand._servers["gateway"][0].server_state.connections)
