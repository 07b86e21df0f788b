"""The short way answers what FastAPI answers, and FastAPI is asked whenever a call isn't as it should be."""

import json
from typing import Annotated, Any, NamedTuple

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from patient_practices import GATEWAY_KEY, JOHN, PatientClient, Practice, ShortWayTransport

from patient_service import handlers
from patient_service.dependencies import ShardToRead
from patient_service.fast_routes import KEPT_QUERY_BYTES, FastRoutes
from shared.context import ContextSigner, ContextVerifier
from shared.cursor import encode_cursor
from shared.door import Door
from shared.ids import new_id
from shared.metrics import RequestMetrics

pytestmark = pytest.mark.anyio

JSON_TYPES = ["application/json", "application/json; charset=utf-8", "application/merge-patch+json"]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 160),
    st.sampled_from([3.0, 1e400, 10**30, "", " ", "3", "John", "98765", "1" * 21, "\ud800", "a\x00b", "\u2028", []]),
    st.text(max_size=8),
)
MEMBERS = st.tuples(st.sampled_from(["name", "age", "mobile", "id", ""]), VALUES)
NEARLY_GOOD = st.lists(MEMBERS, max_size=2).map(lambda members: [*JOHN.items(), *members])
TEXTS = st.one_of(
    st.one_of(NEARLY_GOOD, st.lists(MEMBERS, max_size=3)).map(
        lambda members: ("{" + ",".join(f"{json.dumps(k)}:{json.dumps(v)}" for k, v in members) + "}").encode()
    ),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=6),
    st.sampled_from([json.dumps(JOHN).encode(encoding) for encoding in ("utf-8-sig", "utf-16", "utf-32")]),
)
QUERIES = st.one_of(
    st.just(""),
    st.lists(
        st.tuples(
            st.sampled_from(["limit", "cursor", "Limit", "x"]),
            st.sampled_from(["", "0", "1", "1000", "1001", " 2 ", "+3", "1_0", "2.0", "%31", "é", "x", "a" * 513])
            | st.sampled_from([encode_cursor(str(new_id())), encode_cursor("x"), encode_cursor()]),
        ),
        max_size=3,
    ).map(lambda pairs: "?" + "&".join(f"{name}={value}" for name, value in pairs)),
)
ROUTED = [
    *(("GET", ""), ("GET", ""), ("POST", ""), ("POST", "")),
    *((method, "/{id}") for method in ("GET", "PUT", "PATCH", "DELETE")),
    ("POST", "/{id}/restore"),
]
PATHS = ["", "/", "/{id}", "/{id}/", "/{id}/restore", "/{other}", "/{other}/restore", "/0", "/%20", "/a/b", "//restore"]
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "get"]
CALLS = st.one_of(
    st.sampled_from(ROUTED), st.sampled_from(ROUTED), st.tuples(st.sampled_from(METHODS), st.sampled_from(PATHS))
)
ROLES = ["owner", "owner", "owner", "anonymous", "admin"]


class Sent(NamedTuple):
    call: tuple[str, str]
    query: str
    body: bytes
    media_type: str
    role: str


SENT = st.builds(
    Sent,
    call=CALLS,
    query=QUERIES,
    body=TEXTS,
    media_type=st.sampled_from(JSON_TYPES),
    role=st.sampled_from(ROLES),
)


def without_what_changes(answer: httpx.Response) -> tuple[Any, ...]:
    """The answer, except for ids, times and versions: writes are made twice."""
    shown = {name: value for name, value in answer.headers.items() if name != "content-length"}
    body = answer.json() if answer.content else {}
    body.pop("instance", None)
    if isinstance(patient := body.get("result"), dict):
        for name in {"id", "created_at", "updated_at", "version"} & patient.keys():
            del patient[name]
    return answer.status_code, shown, body


async def all_ways(service: PatientClient, caller: Any, *call: str, **content: Any) -> list[tuple[Any, ...]]:
    """As the server does it, without its messages; with them; and by FastAPI alone."""
    whole, plain = PatientClient(service.app), PatientClient(service.app)
    whole.http = httpx.AsyncClient(transport=ShortWayTransport(service.app), base_url="http://patients")
    door = Door(service.app.inside, verifier=ContextVerifier([GATEWAY_KEY]), metrics=RequestMetrics())
    plain.http = httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://patients")
    return [without_what_changes(await client.call(caller, *call, **content)) for client in (whole, service, plain)]


async def test_good_calls_go_past_asgi_and_others_dont(service: PatientClient, practice: Practice):
    transport = ShortWayTransport(service.app)
    client = PatientClient(service.app)
    client.http = httpx.AsyncClient(transport=transport, base_url="http://patients")
    patient = await client.add(practice)
    for method, path in (("GET", ""), ("GET", f"/{patient['id']}"), ("GET", f"/{new_id()}")):
        assert (await client.call(practice, method, path)).status_code in {200, 404}
    assert transport.went_short == 4
    assert (await client.call(practice, "GET", "?limit=0")).status_code == 422
    assert (await client.call(practice.caller(role="anonymous"), "GET")).status_code == 403
    assert (await client.http.get("/api/v1/patients")).status_code == 401
    assert (await client.http.get("/livez")).status_code == 200
    assert transport.went_short == 4
    assert not transport.tasks


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(sent=SENT)
@example(Sent(("POST", ""), "", b'{"name":"A","age":1,"mobile":"12345","age":2}', JSON_TYPES[0], "owner"))
@example(Sent(("POST", ""), "", b'{"name":"A","age":1,"mobile":"12345","age":"2"}', JSON_TYPES[0], "owner"))
@example(Sent(("POST", ""), "", b"{", JSON_TYPES[0], "anonymous"))
@example(Sent(("POST", ""), "", b"", JSON_TYPES[0], "owner"))
@example(Sent(("PATCH", "/{id}"), "", b"{}", JSON_TYPES[2], "owner"))
@example(Sent(("PATCH", "/0"), "", b"{", JSON_TYPES[0], "owner"))
async def test_all_ways_answer_alike(service: PatientClient, practice: Practice, sent: Sent):
    patient = await service.add(practice)
    method, path = sent.call
    url = path.format(id=patient["id"], other=new_id()) + sent.query
    has_body = method in {"POST", "PUT", "PATCH"}
    content = {"content": sent.body, "headers": {"Content-Type": sent.media_type}} if has_body else {}
    whole, fast, plain = await all_ways(service, practice.caller(role=sent.role), method, url, **content)
    if method == "DELETE" and whole[0] == 200:
        assert fast[0] == plain[0] == 404
    else:
        assert whole == fast == plain


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("call", [("POST", ""), ("PUT", "/{id}"), ("PATCH", "/{id}")])
async def test_a_body_in_another_encoding_is_malformed_either_way(
    service: PatientClient, practice: Practice, call: tuple[str, str], encoding: str
):
    """RFC 8259, 8.1: JSON is UTF-8."""
    patient = await service.add(practice)
    url = call[1].format(id=patient["id"])
    content = {"content": json.dumps(JOHN).encode(encoding), "headers": {"Content-Type": "application/json"}}
    for status, _, body in await all_ways(service, practice.caller(), call[0], url, **content):
        assert (status, body["type"]) == (400, "/errors/malformed-request")
    assert (await service.call(practice, "GET", f"/{patient['id']}")).json()["result"] == patient


async def test_a_body_in_pieces_is_read_whole(service: PatientClient, practice: Practice):
    async def pieces():
        for byte in json.dumps(JOHN).encode():
            yield bytes([byte])

    answer = await service.call(practice, "POST", content=pieces(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 201


async def test_a_body_that_breaks_off_is_not_taken_for_whole(service: PatientClient, practice: Practice):
    """Also if what has come is JSON already."""
    messages = iter(
        [
            {"type": "http.request", "body": json.dumps(JOHN).encode(), "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    headers = [*ContextSigner([GATEWAY_KEY]).headers(practice.caller()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/api/v1/patients", "query_string": b""}
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    await service.app(scope | {"headers": [*headers, (b"content-length", b"1000")]}, receive, send)
    assert sent[0]["status"] == 400
    assert await service.names(practice) == []


async def test_requests_are_counted_by_route_template(service: PatientClient, practice: Practice):
    patient = await service.add(practice)
    await service.call(practice, "GET", f"/{patient['id']}")
    await service.call(practice, "GET", "/0")
    shown = (await service.http.get("/metrics")).text
    for status in (200, 404):
        assert f'method="GET",route="/api/v1/patients/{{patient_id}}",status="{status}"}} 1.0' in shown


async def test_queries_are_remembered_in_bounds(
    service: PatientClient, practice: Practice, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("patient_service.fast_routes.KEPT_QUERIES", 3)
    names = [(await service.add(practice, name=f"Patient {n}"))["name"] for n in range(6)]
    routes = service.app.door._app
    assert isinstance(routes, FastRoutes)
    bound = routes._fixed["GET", handlers.PATH].bound_queries
    for limit in (*range(1, 6), *range(1, 6)):
        for _ in range(2):
            assert await service.names(practice, limit=limit) == names[:limit]
            assert bound[b"limit=%d" % limit] == {"limit": limit}
        assert len(bound) <= 3
    await service.names(practice, unknown="x" * KEPT_QUERY_BYTES)
    assert len(bound) <= 3
    for faulty in ("0", "x"):
        for _ in range(2):
            assert (await service.call(practice, "GET", params={"limit": faulty})).status_code == 422
        assert b"limit=%b" % faulty.encode() not in bound


def test_every_patient_route_has_the_short_way():
    async def behind(*_: Any) -> None:
        raise AssertionError

    assert FastRoutes(behind, router=handlers.router).served == {
        (method, route.path) for route in handlers.router.routes for method in route.methods
    }


async def test_routes_that_need_more_stay_with_fastapi():
    async def other() -> None:
        """No ScopeDependency."""

    router = APIRouter()

    @router.get("/header")
    async def with_header(shard: ShardToRead, x: Annotated[str, Header()]) -> None: ...

    @router.get("/cookie", dependencies=[Depends(other)])
    async def with_other(shard: ShardToRead) -> None: ...

    @router.get("/path/{x}")
    async def with_path(x: str) -> None: ...

    @router.get("/query")
    async def with_required_query(x: int) -> None: ...

    @router.post("/bodies")
    async def with_list(x: list[int]) -> None: ...

    assert not FastRoutes(FastAPI(), router=router).served
