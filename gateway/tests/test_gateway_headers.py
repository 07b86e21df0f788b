"""No header of the internal family reaches a service from outside, however it is written; nor do hop-by-hop ones."""

import itertools

import pytest
from gateway_stand import SHARD, Stand

from gateway import headers
from gateway.headers import answer_headers, passes, read_head
from shared.context import SIGNED_HEADERS

pytestmark = pytest.mark.both_ways

PATIENTS = "/api/v1/patients"
FAMILY = (
    *("X-Practice-Id", "X-Practice-Name", "X-Shard", "X-Shard-Name", "X-User-Id", "X-User-Email", "X-Session-Id"),
    *("X-Role", "X-Roles", "X-Scope", "X-Client-Address", "X-Client-Cert", "X-Gateway-Signature", "X-Gateway-Time"),
    *(
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Prefix",
        "X-Forwarded-User",
        "Forwarded",
    ),
)
OWN = {b"x-request-id", b"host", b"x-gateway-signature", *SIGNED_HEADERS}
FORGED = "forged-by-the-client"


def _spellings(name: str) -> list[str]:
    """Case, and `_` for each `-` in every combination."""
    mixed = "".join(c.upper() if i % 2 else c.lower() for i, c in enumerate(name))
    parts = name.split("-")
    joined = [
        "".join(itertools.chain(*zip(parts, (*seps, ""), strict=True)))
        for seps in itertools.product("-_", repeat=len(parts) - 1)
    ]
    return list(dict.fromkeys([name, name.lower(), name.upper(), mixed, *joined, *(j.upper() for j in joined)]))


def _variants() -> list[tuple[str, list[str]]]:
    variants = []
    for name in FAMILY:
        variants.extend((spelling, [f"{spelling}: {FORGED}"]) for spelling in _spellings(name))
        variants.append((f"{name} twice", [f"{name}: {FORGED}", f"{name}: {FORGED}"]))
        variants.append((f"{name} in two spellings", [f"{name}: {FORGED}", f"{name.replace('-', '_')}: {FORGED}"]))
        variants.append((f"Connection: {name}", [f"Connection: {name}", f"{name}: {FORGED}"]))
        variants.append((f"Connection: close, {name}", [f"Connection: close, {name.lower()}", f"{name}: {FORGED}"]))
        variants.append((f"{name} without a value", [f"{name}:"]))
        variants.append((f"{name} with spaces", [f"{name}:  \t {FORGED} \t"]))
    return variants


def test_no_forged_header_reaches_a_service(stand: Stand) -> None:
    """Every variant over a raw socket, on a protected and on a public route."""
    variants = _variants()
    assert len(variants) >= 200
    token = stand.bearer()["Authorization"]
    for _, lines in variants:
        forged = "".join(f"{line}\r\n" for line in lines)
        head = f"Host: x\r\nAuthorization: {token}\r\nX-Harmless: kept\r\n{forged}"
        first = f"GET {PATIENTS} HTTP/1.1\r\n{head}\r\n"
        second = f"POST /api/v1/practices/login HTTP/1.1\r\nConnection: close\r\n{head}Content-Length: 0\r\n\r\n"
        closes = "close" in forged
        stand.raw(first.encode() if closes else (first + second).encode())
        if closes:
            stand.raw(second.encode())
    assert len(stand.patient.calls) == len(stand.auth.calls) == len(variants)
    for call in (*stand.patient.calls, *stand.auth.calls):
        names = [name for name, _ in call.headers]
        assert set(names) == OWN | {b"x-harmless"} | ({b"content-length"} & set(names))
        assert len(names) == len(set(names))
        assert not any(FORGED.encode() in value for _, value in call.headers)
    assert {call.caller.shard for call in stand.patient.calls} == {SHARD}
    assert {call.caller.role for call in stand.patient.calls} == {"owner"}
    assert {call.caller.role for call in stand.auth.calls} == {"anonymous"}


def test_connection_cannot_make_the_gateway_drop_its_own_headers(stand: Stand) -> None:
    """`Connection: X-Shard` concerns what the client sent, not what the gateway adds."""
    named = ", ".join((*FAMILY, "Authorization", "X-Request-Id", "Content-Length", "Host"))
    request = (
        f"POST {PATIENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: {stand.bearer()['Authorization']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close, {named}\r\n\r\n{{}}"
    )
    assert stand.raw(request.encode()).startswith(b"HTTP/1.1 200 ")
    [call] = stand.patient.calls
    assert (call.caller.shard, call.body) == (SHARD, b"{}")


@pytest.mark.parametrize(
    "name",
    [
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authorization",
        "Proxy-Authenticate",
        "TE",
        "Trailer",
        "Upgrade",
        "Expect",
    ],
)
def test_hop_by_hop_headers_stay_here(stand: Stand, name: str) -> None:
    value = "100-continue" if name == "Expect" else "x"
    stand.client.post(
        PATIENTS, headers={**stand.bearer(), name: value, "Content-Type": "application/json"}, content=b"{}"
    )
    assert stand.patient.calls[0].header(name.lower()) is None


def test_what_connection_names_is_dropped(stand: Stand) -> None:
    headers = {
        **stand.bearer(),
        "Connection": "keep-alive, X-Secret-Of-This-Hop",
        "X-Secret-Of-This-Hop": "1",
        "X-Other": "2",
    }
    stand.client.get(PATIENTS, headers=headers)
    assert stand.patient.calls[0].header("x-secret-of-this-hop") is None
    assert stand.patient.calls[0].header("x-other") == "2"


def test_ordinary_headers_pass() -> None:
    for name in (b"accept", b"content-type", b"if-match", b"idempotency-key", b"user-agent", b"cookie", b"x-harmless"):
        assert passes(name)


def test_decisions_about_made_up_names_are_not_hoarded() -> None:
    for number in range(3000):
        assert passes(b"x-made-up-%d" % number)
        assert not passes(b"x-shard-%d" % number)
    assert len(headers._passes) <= headers._MAX_KNOWN_NAMES


def test_a_service_cannot_send_hop_by_hop_headers_to_a_client() -> None:
    sent = [
        (b"Connection", b"close"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Server", b"x"),
        (b"Date", b"x"),
        (b"A", b"1"),
    ]
    names = [name for name, _ in answer_headers(sent, b"id")]
    assert names == [b"a", b"cache-control", b"x-content-type-options", b"x-request-id"]


def test_a_repeated_request_id_is_still_one() -> None:
    head = read_head([(b"x-request-id", b"aaaaaaaaaa"), (b"x-request-id", b"bbbbbbbbbb")])
    assert head.request_id in (b"aaaaaaaaaa", b"bbbbbbbbbb")
    assert head.passing == []
