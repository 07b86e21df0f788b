"""A service that is called past the gateway answers 401, whatever the path and whatever else it is sent."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from e2e_stack import EmbeddedStack, new_secret

from shared.context import SIGNATURE_HEADER, Caller, ContextSigner, Header
from shared.service_urls import split_url

SERVICES = ("auth-service", "tenant-service", "patient-service", "notifier")
OPEN = ("/livez", "/readyz", "/metrics")
ANY_ID = "018f0000-0000-7000-8000-000000000000"
PATHS = (
    ("GET", "/"),
    ("GET", "/nothing"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("POST", "/api/v1/practices/signup"),
    ("POST", "/api/v1/practices/login"),
    ("GET", "/api/v1/practices"),
    ("GET", "/api/v1/admin/practices"),
    ("GET", "/api/v1/admin/servers"),
    ("GET", "/api/v1/patients"),
    ("POST", "/api/v1/patients"),
    ("PUT", f"/api/v1/patients/{ANY_ID}"),
    ("DELETE", f"/api/v1/patients/{ANY_ID}"),
    ("PUT", f"/internal/shards/{ANY_ID}"),
    ("DELETE", f"/internal/shards/{ANY_ID}"),
    ("GET", "/internal/servers"),
    ("GET", "/internal/changes"),
    ("POST", "/internal/receipts"),
    ("GET", "/livez/"),
    ("GET", "/livez/../internal/servers"),
    ("GET", "//livez"),
    ("GET", "/%6civez/x"),
)
OWNER = Caller(practice_id=ANY_ID, shard="a/shard_0123456789", user_id=ANY_ID, session_id=ANY_ID, role="owner")
SERVICE = Caller(role="service:gateway")
ADMIN = Caller(role="admin")

Headers = list[Header]


def _signed(key: str, caller: Caller, *, at: float | None = None) -> Headers:
    signer = ContextSigner([key.encode()])
    if at is None:
        return list(signer.headers(caller))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: at)
        return list(signer.headers(caller))


def _replaced(headers: Headers, name: bytes, value: bytes) -> Headers:
    return [(one, value if one == name else old) for one, old in headers]


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest, urls: dict[str, str]) -> Iterator[httpx.Client]:
    """A client of one service's own socket."""
    base_url, socket_path = split_url(urls[request.param])
    with httpx.Client(base_url=base_url, transport=httpx.HTTPTransport(uds=socket_path), timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def urls(stack: EmbeddedStack) -> dict[str, str]:
    """Where each service listens."""
    return {name: entry["url"] for name, entry in stack.status().items() if name in SERVICES}


@pytest.fixture(scope="module")
def key(stack: EmbeddedStack) -> str:
    """The secret that really signs."""
    return stack.environment["GATEWAY_SECRET"]


def _forgeries(key: str) -> dict[str, Headers]:
    """Every way to be refused."""
    good = _signed(key, OWNER)
    now = time.time()
    return {
        "unsigned": [],
        "context without signature": [one for one in good if one[0] != SIGNATURE_HEADER],
        "signature without context": [one for one in good if one[0] == SIGNATURE_HEADER],
        "another key": _signed(new_secret(), OWNER),
        "another key, as a service": _signed(new_secret(), SERVICE),
        "another key, as the admin": _signed(new_secret(), ADMIN),
        "old": _signed(key, OWNER, at=now - 62),
        "old, as a service": _signed(key, SERVICE, at=now - 62),
        "from the future": _signed(key, OWNER, at=now + 20),
        "another practice": _replaced(good, b"x-practice-id", b"018f0000-0000-7000-8000-000000000001"),
        "another shard": _replaced(good, b"x-shard", b"a/shard_9999999999"),
        "another role": _replaced(good, b"x-role", b"service:gateway"),
        "another address": _replaced(good, b"x-client-address", b"10.1.1.1"),
        "one header missing": [one for one in good if one[0] != b"x-scope"],
        "one header repeated": [*good, (b"x-role", b"owner")],
        "empty signature": _replaced(good, SIGNATURE_HEADER, b""),
        "no time": _replaced(good, SIGNATURE_HEADER, dict(good)[SIGNATURE_HEADER].partition(b".")[2]),
        "later time on an old signature": _replaced(
            _signed(key, OWNER, at=now - 3600),
            SIGNATURE_HEADER,
            str(int(now)).encode()
            + b"."
            + dict(_signed(key, OWNER, at=now - 3600))[SIGNATURE_HEADER].partition(b".")[2],
        ),
    }


def test_without_a_valid_signature_every_path_is_401(service: httpx.Client, key: str) -> None:
    for how, headers in _forgeries(key).items():
        for method, path in PATHS:
            answer = service.request(method, path, headers=headers)
            assert answer.status_code == 401, (how, method, path, answer.text)
            assert answer.json()["success"] is False


@pytest.mark.parametrize(
    "parts",
    [
        {"content": b"{"},
        {"content": b"x" * 3_000_000, "headers": {"Content-Type": "application/json"}},
        {"content": b"a=b", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"headers": {"Authorization": "Basic YWRtaW46YWRtaW4="}},
        {"headers": {"Authorization": "Bearer x.y.z"}},
        {"headers": {"X-Role": "service:gateway", "X-Request-Id": "12345678"}},
        {"params": {"signature": "x"}},
    ],
    ids=lambda parts: str(parts)[:40],
)
def test_what_else_is_sent_changes_nothing(service: httpx.Client, parts: dict[str, Any]) -> None:
    for method, path in (("POST", "/api/v1/patients"), ("POST", "/nothing"), ("POST", "/internal/receipts")):
        assert service.request(method, path, **parts).status_code == 401


def test_with_the_right_signature_the_same_services_let_in(service: httpx.Client, key: str) -> None:
    """The control: what is refused above is refused for its signature."""
    for caller in (OWNER, SERVICE, ADMIN):
        assert service.get("/nothing", headers=_signed(key, caller)).status_code == 404


def test_a_signature_that_is_old_but_not_too_old_is_accepted(service: httpx.Client, key: str) -> None:
    headers = _signed(key, SERVICE, at=time.time() - 45)
    assert service.get("/nothing", headers=headers).status_code == 404


def test_internal_routes_are_not_there_for_people(service: httpx.Client, key: str) -> None:
    for path in ("/internal/servers", "/internal/changes", f"/internal/shards/{ANY_ID}"):
        assert service.get(path, headers=_signed(key, OWNER)).status_code == 404
        assert service.get(path, headers=_signed(key, ADMIN)).status_code == 404


@pytest.mark.parametrize("path", OPEN)
def test_health_and_metrics_need_no_signature(service: httpx.Client, path: str) -> None:
    answer = service.get(path)
    assert answer.status_code == 200, answer.text


def test_the_jwks_needs_no_signature(urls: dict[str, str]) -> None:
    base_url, socket_path = split_url(urls["auth-service"])
    with httpx.Client(base_url=base_url, transport=httpx.HTTPTransport(uds=socket_path)) as client:
        keys = client.get("/.well-known/jwks.json").json()["keys"]
    assert keys
    assert all("d" not in one for one in keys)


@pytest.mark.parametrize(
    ("shard", "status"),
    [("", 400), ("postgres", 400), ("a/postgres", 400), ("a/shard_x; DROP", 400), ("zz/shard_0123456789", 503)],
)
def test_a_missing_malformed_or_unknown_shard_is_a_named_error(
    urls: dict[str, str], key: str, shard: str, status: int
) -> None:
    """Never a default. Even the gateway could not make the service guess."""
    caller = Caller(practice_id=ANY_ID, shard=shard, user_id=ANY_ID, session_id=ANY_ID, role="owner")
    base_url, socket_path = split_url(urls["patient-service"])
    with httpx.Client(base_url=base_url, transport=httpx.HTTPTransport(uds=socket_path)) as client:
        answer = client.get("/api/v1/patients", headers=_signed(key, caller))
    assert answer.status_code == status, answer.text
    assert answer.json()["type"].startswith("/errors/")
    assert "shard" in answer.json()["type"]


def test_a_shard_of_another_practice_is_refused_by_its_stamp(
    urls: dict[str, str], key: str, stack: EmbeddedStack, new_practice: Callable[..., Any]
) -> None:
    """Were the directory wrong and the gateway deceived, the stamp in the database still says whose it is."""
    victim = new_practice()
    victim.new_patient(name="Not for strangers")
    [database] = [one["database"] for one in stack.command_json("practices", "list") if one["id"] == victim.id]
    deceived = Caller(practice_id=ANY_ID, shard=f"a/{database}", user_id=ANY_ID, session_id=ANY_ID, role="owner")
    base_url, socket_path = split_url(urls["patient-service"])
    with httpx.Client(base_url=base_url, transport=httpx.HTTPTransport(uds=socket_path)) as client:
        for _ in range(3):  # the connection may be open already, for its rightful practice
            answer = client.get("/api/v1/patients", headers=_signed(key, deceived))
            assert answer.status_code == 503, answer.text
            assert answer.json()["type"] == "/errors/wrong-shard"
            assert "Not for strangers" not in answer.text
            assert victim.patients()
