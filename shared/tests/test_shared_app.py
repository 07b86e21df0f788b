"""The application every service starts from: its door, its errors, its health."""

import json

import orjson
import pytest
from fastapi import Depends
from pydantic import Field
from starlette.testclient import TestClient

from shared.app import CallerDep, create_service_app, requires, service_only
from shared.context import Caller, ContextSigner
from shared.cursor import CursorText, Limit, decode_cursor
from shared.envelope import success
from shared.errors import UnavailableError
from shared.models import PlainText, StrictBody
from shared.roles import Permission

KEY = b"a key of the gateway for this test"


class Body(StrictBody):
    name: PlainText = Field(min_length=1, max_length=10)
    age: int = Field(ge=0, le=150)


@pytest.fixture
def missing():
    return {}


@pytest.fixture
def client(missing):
    async def ready():
        return missing

    app = create_service_app(title="example", keys=[KEY], ready=ready)

    @app.post("/api/v1/things", dependencies=[requires(Permission.PATIENTS_WRITE)])
    def add(body: Body, caller: CallerDep):
        return success("Added!", {"name": body.name, "practice": caller.practice_id}, status=201)

    @app.get("/api/v1/things")
    def show(limit: Limit = 100, cursor: CursorText = None):
        return success("Fetched!", decode_cursor(cursor, parts=1) if cursor else [])

    @app.get("/api/v1/broken")
    def broken():
        raise RuntimeError("SELECT secret FROM patients WHERE name = 'Marker'")

    @app.get("/api/v1/busy")
    def busy():
        raise UnavailableError("Shedding load.", retry_after_s=7)

    @app.get("/internal/things", dependencies=[Depends(service_only)])
    def inside():
        return success("Inside!")

    return TestClient(app, raise_server_exceptions=False)


def signed(**caller):
    return {name.decode(): value.decode() for name, value in ContextSigner([KEY]).headers(Caller(**caller))}


OWNER = {"practice_id": "p", "role": "owner"}
GOOD = {"name": "Ann", "age": 3}


def test_health_and_metrics_are_open_and_everything_else_is_shut(client):
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 200
    assert "gowebbo_requests" in client.get("/metrics").text
    for path in ("/api/v1/things", "/internal/things", "/unknown", "/openapi.json", "/"):
        assert client.get(path).status_code == 401
    assert (
        client.post("/api/v1/things", json=GOOD, headers={"X-Role": "owner", "X-Practice-Id": "p"}).status_code == 401
    )


def test_readiness_names_what_is_missing(client, missing):
    missing["database"] = "unreachable"
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["missing"] == {"database": "unreachable"}


def test_success_has_the_envelope(client):
    answer = client.post("/api/v1/things", json=GOOD, headers=signed(**OWNER))
    assert answer.status_code == 201
    assert answer.json() == {
        "success": True, "status": 201, "message": "Added!", "result": {"name": "Ann", "practice": "p"},
    }  # fmt: skip


def test_errors_have_the_envelope_and_the_problem_members(client):
    answer = client.post("/api/v1/things", json={**GOOD, "age": "Marker"}, headers=signed(**OWNER))
    problem = answer.json()
    assert answer.status_code == problem["status"] == 422
    assert problem["success"] is False
    assert problem["message"] == "Validation failed."
    assert problem["type"] == "/errors/validation"
    assert {"title", "detail", "instance"} <= problem.keys()
    assert [fault["field"] for fault in problem["errors"]] == ["age"]
    assert "Marker" not in answer.text
    assert answer.headers["content-type"] == "application/json"


def test_problem_json_is_given_to_who_asks_for_it(client):
    answer = client.get("/unknown", headers={**signed(**OWNER), "Accept": "application/problem+json"})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


NO_BODY = [
    *({**GOOD, "age": age} for age in ("3", True, 3.0, 151, -1, None)),
    *({**GOOD, "name": name} for name in ("   ", "", "a\x00b", "a\r\nBcc: x", "a" * 11, 7, None)),
    *({**GOOD, name: 1} for name in ("id", "is_deleted", "role", "practice_id")),
    {"name": "Ann"},
    {},
    [],
    "text",
    None,
]


@pytest.mark.parametrize("body", NO_BODY)
def test_bodies_are_read_strictly(client, body):
    assert client.post("/api/v1/things", json=body, headers=signed(**OWNER)).status_code == 422


def test_text_is_trimmed(client):
    answer = client.post("/api/v1/things", json={**GOOD, "name": " Ann "}, headers=signed(**OWNER))
    assert answer.json()["result"]["name"] == "Ann"


@pytest.mark.parametrize(
    "raw", [b"{", b"", b"\xff\xfe", b"[" * 10_000, b'{"name": "a", "age": }', b'{"name":"\\ud800","age":1}', b"NaN"]
)
def test_no_body_makes_a_500(client, raw):
    answer = client.post("/api/v1/things", content=raw, headers={**signed(**OWNER), "Content-Type": "application/json"})
    assert answer.status_code in {400, 422}


@pytest.mark.parametrize("piece", [1, 1000])
@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "latin-1"]
)
def test_a_body_in_another_encoding_is_no_json(client, encoding, piece):
    """RFC 8259, 8.1; Python's own parser would guess the encoding."""
    raw = json.dumps({**GOOD, "name": "Zoë"}, ensure_ascii=False).encode(encoding)
    headers = {**signed(**OWNER), "Content-Type": "application/json"}
    answer = client.post("/api/v1/things", content=_pieces(raw, piece), headers=headers)
    malformed = client.post("/api/v1/things", content=b"{", headers=headers)
    assert answer.status_code == malformed.status_code == 400
    assert _without_instance(answer) == _without_instance(malformed)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_body_in_utf8_is_read_however_it_is_cut(client, encoding):
    raw = json.dumps({**GOOD, "name": "Zoë 😀"}, ensure_ascii=False).encode(encoding)
    headers = {**signed(**OWNER), "Content-Type": "application/json"}
    answer = client.post("/api/v1/things", content=_pieces(raw, 1), headers=headers)
    assert answer.json()["result"]["name"] == "Zoë 😀"


def _pieces(raw, size):
    return (raw[start : start + size] for start in range(0, len(raw), size))


def _without_instance(answer):
    return {name: value for name, value in answer.json().items() if name != "instance"}


def test_all_faults_are_listed(client):
    answer = client.post("/api/v1/things", json={"name": "", "age": -1, "x": 1}, headers=signed(**OWNER))
    assert {fault["field"] for fault in answer.json()["errors"]} == {"name", "age", "x"}


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded", ""])
def test_a_body_that_is_not_declared_as_json_is_refused(client, media_type):
    headers = {**signed(**OWNER), "Content-Type": media_type}
    assert client.post("/api/v1/things", content=orjson.dumps(GOOD), headers=headers).status_code == 415


@pytest.mark.parametrize("role", ["auditor", "anonymous", "admin", "service:x", ""])
def test_a_role_without_the_permission_gets_403(client, role):
    assert client.post("/api/v1/things", json=GOOD, headers=signed(role=role)).status_code == 403


def test_internal_routes_are_for_services_only(client):
    assert client.get("/internal/things", headers=signed(**OWNER)).status_code == 404
    assert client.get("/internal/things", headers=signed(role="service:notifier")).status_code == 200


def test_an_unexpected_fault_tells_nothing(client, capsys):
    answer = client.get("/api/v1/broken", headers=signed(**OWNER))
    assert answer.status_code == 500
    assert answer.json()["type"] == "/errors/internal"
    logged = capsys.readouterr().out
    assert "RuntimeError" in logged
    assert "Marker" not in answer.text + logged


def test_an_unexpected_fault_costs_no_connection(client):
    client = TestClient(client.app)  # raises whatever reaches the server
    assert client.get("/api/v1/broken", headers=signed(**OWNER)).status_code == 500


def test_shed_load_says_when_to_come_again(client):
    answer = client.get("/api/v1/busy", headers=signed(**OWNER))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")


def test_a_wrong_method_names_the_right_ones(client):
    answer = client.delete("/api/v1/broken", headers=signed(**OWNER))
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize("query", ["cursor=x", "cursor=%00", "cursor=W10", "cursor=e30", "cursor=WzFd"])
def test_a_malformed_cursor_is_a_400(client, query):
    assert client.get(f"/api/v1/things?{query}", headers=signed(**OWNER)).status_code == 400


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=-1", f"cursor={'a' * 513}"])
def test_limits_of_a_page_are_validated(client, query):
    assert client.get(f"/api/v1/things?{query}", headers=signed(**OWNER)).status_code == 422


def test_a_valid_request_id_is_kept_and_another_replaced(client):
    kept = client.get("/unknown", headers={**signed(**OWNER), "X-Request-Id": "client-id.0001"})
    assert kept.json()["instance"] == "client-id.0001"
    for bad in ("short", "x" * 65, "with space in", "quote'quote"):
        replaced = client.get("/unknown", headers={**signed(**OWNER), "X-Request-Id": bad})
        assert replaced.json()["instance"] != bad


def test_requests_are_counted_by_route_template(client):
    client.post("/api/v1/things", json=GOOD, headers=signed(**OWNER))
    assert (
        'gowebbo_requests_total{method="POST",route="/api/v1/things",status="201"} 1.0' in client.get("/metrics").text
    )
