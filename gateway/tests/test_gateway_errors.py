"""What the gateway itself refuses has the product's error form, the right status, and tells nothing of the inside."""

import json
import socket

import pytest
from gateway_stand import ADMIN, Stand, constant, filled

from gateway.routes import ROUTES, Access

pytestmark = pytest.mark.both_ways

PATIENTS = "/api/v1/patients"
PATIENT = f"{PATIENTS}/0199aaaa-0000-7000-8000-000000000009"
MEMBERS = {"success", "status", "message", "type", "title", "detail", "instance"}


def _assert_error(answer, status: int, error: str) -> None:
    document = answer.json()
    assert document.keys() == MEMBERS
    assert (answer.status_code, document["status"], document["success"]) == (status, status, False)
    assert document["type"] == f"/errors/{error}"
    assert document["instance"] == answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers.get_list("cache-control") == ["no-store"]
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert "server" not in answer.headers


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.template}")
def test_every_route_that_is_not_public_answers_401_without_credentials(stand: Stand, route) -> None:
    path = filled(route, "0199aaaa-0000-7000-8000-000000000009")
    answer = stand.client.request(route.method, path)
    reached = any(service.calls for service in stand.services.values())
    if route.access is Access.PUBLIC:
        assert (answer.status_code, reached) == (200, True)
        return
    _assert_error(answer, 401, "unauthenticated")
    assert not reached
    challenge = answer.headers["www-authenticate"]
    assert ("Bearer" in challenge) == (route.access in {Access.BEARER, Access.BEARER_OR_ADMIN})
    assert ("Basic" in challenge) == (route.access in {Access.ADMIN, Access.BEARER_OR_ADMIN})
    assert "error" not in challenge


def test_the_public_routes_are_these_and_no_more() -> None:
    public = {route.template for route in ROUTES if route.access is Access.PUBLIC}
    assert public == {
        "/api/v1/practices/signup",
        "/api/v1/practices/login",
        "/api/v1/signup",
        "/api/v1/login",
        "/api/v1/auth/refresh",
        "/api/v1/auth/password/forgot",
        "/api/v1/auth/password/reset",
        "/api/v1/auth/email/verify",
        "/api/v1/staff/invitations/accept",
    }
    basic = {route.template for route in ROUTES if route.access in {Access.ADMIN, Access.BEARER_OR_ADMIN}}
    other = {template for template in basic if not template.startswith("/api/v1/admin/")}
    assert other == {"/api/v1/practices", "/api/v1/audit"}


@pytest.mark.parametrize(
    "route", [r for r in ROUTES if r.access is Access.BEARER], ids=lambda r: f"{r.method} {r.template}"
)
def test_the_admins_password_opens_no_route_of_a_practice(stand: Stand, route) -> None:
    answer = stand.client.request(route.method, filled(route, "x"), auth=ADMIN)
    _assert_error(answer, 401, "unauthenticated")


@pytest.mark.parametrize(
    "route", [r for r in ROUTES if r.access is Access.ADMIN], ids=lambda r: f"{r.method} {r.template}"
)
def test_a_practices_token_opens_no_route_of_the_admin(stand: Stand, route) -> None:
    answer = stand.client.request(route.method, filled(route, "x"), headers=stand.bearer())
    _assert_error(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    "path",
    ["/", "/nothing", "/api/v1", "/api/v1/patient", "/internal/changes", "/metrics", "/docs/static/nothing", "/redoc"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_address_is_404(stand: Stand, path: str, method: str) -> None:
    answer = stand.client.request(method, path, headers=stand.bearer())
    if path.startswith("/docs/static") and method != "GET":
        assert answer.status_code == 405
    else:
        _assert_error(answer, 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", PATIENTS, {"GET", "HEAD", "POST"}),
        ("POST", PATIENT, {"GET", "HEAD", "PUT", "PATCH", "DELETE"}),
        ("GET", f"{PATIENT}/restore", {"POST"}),
        ("GET", "/api/v1/practices/login", {"POST"}),
        ("DELETE", "/api/v1/practices", {"GET", "HEAD"}),
        ("HEAD", "/api/v1/practices/login", {"POST"}),
        ("POST", "/livez", {"GET", "HEAD"}),
        ("OPTIONS", PATIENTS, {"GET", "HEAD", "POST"}),
    ],
)
def test_another_method_is_405_and_names_the_allowed_ones(
    stand: Stand, method: str, path: str, allow: set[str]
) -> None:
    answer = stand.client.request(method, path)
    if method == "HEAD":
        assert (answer.status_code, answer.content) == (405, b"")
    else:
        _assert_error(answer, 405, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) == allow


def test_problem_json_is_given_to_those_who_ask(stand: Stand) -> None:
    for path in (PATIENTS, "/nothing"):
        answer = stand.client.get(path, headers={"Accept": "application/problem+json"})
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json().keys() == MEMBERS


def test_a_body_that_says_it_is_too_large_is_413_without_being_read(stand: Stand) -> None:
    head = f"POST {PATIENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: {stand.bearer()['Authorization']}\r\n"
    answer = stand.raw(f"{head}Expect: 100-continue\r\nContent-Length: {2 * 1024 * 1024 + 1}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "/errors/body-too-large"
    assert stand.patient.calls == []


def test_an_endless_chunked_body_is_413(stand: Stand) -> None:
    head = f"POST {PATIENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: {stand.bearer()['Authorization']}\r\n"
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", stand.port), timeout=10) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(33):
            connection.sendall(chunk)
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    assert stand.patient.calls == []


def test_a_large_body_without_credentials_is_refused_and_the_connection_closed(stand: Stand) -> None:
    body = b"a" * 1_000_000
    head = f"POST {PATIENTS} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = stand.raw(head.encode() + body)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nconnection: close\r\n" in answer


def test_a_refused_small_body_keeps_the_connection(stand: Stand) -> None:
    body = "GET /internal/changes HTTP/1.1\r\n\r\n"
    refused = f"POST {PATIENTS} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    answer = stand.raw(f"{refused}GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"401", b"200"]


@pytest.mark.parametrize("refused", [f"POST {PATIENTS}", f"PUT {PATIENTS}", "POST /livez", "POST /nothing"])
def test_a_client_that_waits_to_go_on_and_is_refused_may_keep_its_body(stand: Stand, refused: str) -> None:
    """Its next request would be taken for the body that it didn't send (RFC 9110, 10.1.1), so it has to begin anew."""
    head = f"{refused} HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 100\r\n\r\n"
    answer = stand.raw(f"{head}GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"\r\nconnection: close\r\n" in answer


def test_a_header_that_http_cannot_carry_is_400(stand: Stand) -> None:
    target = f"{PATIENTS}?q=".encode() + b"\xc3\xa9"
    head = f"Host: x\r\nConnection: close\r\nAuthorization: {stand.bearer()['Authorization']}\r\n\r\n".encode()
    assert stand.raw(b"GET " + target + b" HTTP/1.1\r\n" + head)[:12] in {b"HTTP/1.1 400", b"HTTP/1.1 200"}


def test_no_cors_header_is_sent(stand: Stand) -> None:
    headers = {**stand.bearer(), "Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for method in ("GET", "OPTIONS"):
        answer = stand.client.request(method, PATIENTS, headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_fault_nobody_thought_of_is_500_and_tells_nothing(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, log_entries
) -> None:
    secret = "postgresql://user:hunter22@db/patients"

    def explode(*_) -> None:
        raise KeyError(secret)

    headers = stand.bearer()
    monkeypatch.setattr(stand.gateway.app._forwarder._authenticator, "known_caller", explode)
    answer = stand.client.get(PATIENTS, headers=headers)
    _assert_error(answer, 500, "internal")
    assert secret not in answer.text
    entries = [entry for entry in log_entries if entry["event"] == "unexpected_fault"]
    assert entries[-1]["request_id"] == answer.headers["x-request-id"]
    assert "hunter22" not in str(log_entries)


def test_a_shard_that_nobody_knows_is_a_named_error(stand: Stand) -> None:
    answer = stand.client.get(PATIENTS, headers=stand.bearer(practice="0199eeee-0000-7000-8000-000000000001"))
    _assert_error(answer, 503, "practice-without-shard")
    assert answer.headers["retry-after"]
    assert stand.patient.calls == []


@pytest.mark.parametrize(
    "shard", ["", "a", "a/", "/shard_0123456789", "a/postgres", "a/shard_x;drop", "A/shard_0123456789", None, 5, {}]
)
def test_a_malformed_shard_from_the_directory_is_never_used(stand: Stand, shard) -> None:
    practice = "0199eeee-0000-7000-8000-000000000002"
    stand.tenant.answers["*", "/internal/shards"] = constant({"shard": shard})
    answer = stand.client.get(PATIENTS, headers=stand.bearer(practice=practice))
    _assert_error(answer, 503, "unavailable")
    assert stand.patient.calls == []
