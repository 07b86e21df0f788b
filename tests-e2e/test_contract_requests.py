"""Credentials, bodies, methods and headers, as every patient route treats them."""

import json
from typing import Any

import pytest
from e2e_api import (
    PATIENT,
    PATIENTS,
    Api,
    Practice,
    assert_error,
    new_uuid,
    patient_path,
)

MERGE_PATCH = "application/merge-patch+json"
ID_ROUTES = [("GET", ""), ("PUT", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/restore")]
ROUTES = [
    ("GET", PATIENTS),
    ("POST", PATIENTS),
    *((method, patient_path("018f0000-0000-7000-8000-000000000000", deed)) for method, deed in ID_ROUTES),
]


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda value: value.replace(PATIENTS, ""))
class TestCredentials:
    def test_without_a_token_it_is_401_and_no_error_is_named(self, api: Api, method: str, path: str) -> None:
        """RFC 6750, 3.1: `error` only when a token was sent."""
        answer = api.call(method, path)
        assert_error(answer, 401)
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith("Bearer")
        assert "error" not in challenge

    def test_a_bad_token_is_401_and_named_so(self, api: Api, practice: Practice, method: str, path: str) -> None:
        head, claims, signature = practice.token.split(".")
        forged = [
            "x",
            "a.b.c",
            f"{head}.{claims}.",
            f"{head}.{claims}.{signature[:-4]}AAAA",
            f"{head}.{claims[:-4]}AAAA.{signature}",
            "eyJhbGciOiJub25lIn0." + claims + ".",
        ]
        for token in forged:
            answer = api.call(method, path, token=token)
            assert_error(answer, 401)
            assert 'error="invalid_token"' in answer.headers["www-authenticate"]
            assert len(token) == 1 or token not in answer.text

    @pytest.mark.parametrize("value", ["Bearer", "Basic eDp5", "Token abc", "bearer\tx"], ids=repr)
    def test_another_authorization_is_401(self, api: Api, method: str, path: str, value: str) -> None:
        assert_error(api.call(method, path, headers={"Authorization": value}), 401)


def test_the_scheme_bearer_has_no_case(api: Api, practice: Practice) -> None:
    """RFC 9110, 11.1."""
    answer = api.get(PATIENTS, headers={"Authorization": f"bearer {practice.token}"})
    assert answer.status_code == 200


def test_a_token_in_the_query_is_none(api: Api, practice: Practice) -> None:
    assert_error(api.get(PATIENTS, params={"access_token": practice.token}), 401)


def _name_of(value: object) -> str:
    return repr(value)[:50]


def _send(practice: Practice, method: str, path: str, content: bytes, media_type: str | None) -> Any:
    headers = {"Content-Type": media_type} if media_type else {}
    return practice.call(method, path, content=content, headers=headers)


# bodies


@pytest.fixture(scope="module")
def writing_routes(practice: Practice) -> list[tuple[str, str]]:
    """The routes that read a body, with a patient that exists."""
    path = patient_path(practice.new_patient()["id"])
    return [("POST", PATIENTS), ("PUT", path), ("PATCH", path)]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"{'name': 'x'}", 400),
        (b'{"name": "x",}', 400),
        (b'{"name": "\xff\xfe"}', 400),
        (b'{"age": NaN}', 400),
        (b"\x00", 400),
        (b"[" * 10_000, 400),
        (b'{"name": "\\ud800", "age": 1, "mobile": "12345"}', 422),
        (b"[]", 422),
        (b"null", 422),
        (b'"text"', 422),
        (b"3", 422),
    ],
    ids=_name_of,
)
def test_a_body_that_cannot_be_read(
    practice: Practice, writing_routes: list[tuple[str, str]], content: bytes, status: int
) -> None:
    for method, path in writing_routes:
        answer = _send(practice, method, path, content, "application/json")
        if b"\\ud800" in content or content == b'{"age": NaN}':
            # JSON's grammar and Unicode's rules overlap here: either way it is the client's fault
            assert answer.status_code in {400, 422}, (method, answer.text)
        else:
            assert_error(answer, status)


def test_a_missing_body_is_the_clients_fault(practice: Practice, writing_routes: list[tuple[str, str]]) -> None:
    for method, path in writing_routes:
        assert practice.call(method, path).status_code in {400, 415, 422}


@pytest.mark.parametrize(
    "media_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml"]
)
def test_another_media_type_is_415(
    practice: Practice, writing_routes: list[tuple[str, str]], media_type: str | None
) -> None:
    for method, path in writing_routes:
        assert_error(_send(practice, method, path, json.dumps(PATIENT).encode(), media_type), 415)


def test_a_merge_patch_is_for_patch_only(practice: Practice, writing_routes: list[tuple[str, str]]) -> None:
    for method, path in writing_routes:
        answer = _send(practice, method, path, json.dumps(PATIENT).encode(), MERGE_PATCH)
        assert answer.status_code == (200 if method == "PATCH" else 415)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_two_megabytes_is_413(
    practice: Practice, writing_routes: list[tuple[str, str]], *, chunked: bool
) -> None:
    whole = b'{"name": "' + b"x" * 2_100_000 + b'"}'

    def pieces() -> Any:
        for start in range(0, len(whole), 65_536):
            yield whole[start : start + 65_536]

    for method, path in writing_routes:
        answer = _send(practice, method, path, pieces() if chunked else whole, "application/json")
        assert_error(answer, 413)


# methods, headers, forms of the answer


def test_another_method_is_405_and_the_allowed_ones_are_named(practice: Practice) -> None:
    one = patient_path(practice.new_patient()["id"])
    expected = {
        (PATIENTS, "PUT"): {"GET", "POST"},
        (PATIENTS, "DELETE"): {"GET", "POST"},
        (PATIENTS, "PATCH"): {"GET", "POST"},
        (one, "POST"): {"GET", "PUT", "PATCH", "DELETE"},
        (f"{one}/restore", "GET"): {"POST"},
        (f"{one}/restore", "DELETE"): {"POST"},
        (one, "TRACE"): {"GET", "PUT", "PATCH", "DELETE"},
    }
    for (path, method), allowed in expected.items():
        answer = practice.call(method, path)
        assert_error(answer, 405)
        assert allowed <= {name.strip() for name in answer.headers["allow"].split(",")}, (path, method)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v1/nothing",
        "/api/v1/patients/",
        "/api/v1/patients/x/y/z",
        "/api/v2/patients",
        "/internal/shards/018f0000-0000-7000-8000-000000000000",
        "/internal/servers",
        "/internal/changes",
        "/internal/receipts",
        "/metrics",
        "/api/v1/../../internal/servers",
        "/api/v1/%2e%2e/%2e%2e/internal/servers",
        "/api/v1/patients/..%2f..%2f..%2finternal%2fservers",
        "//internal/servers",
        "/admin",
        "/.env",
    ],
)
def test_an_unknown_route_is_404_with_and_without_a_token(api: Api, practice: Practice, path: str) -> None:
    assert_error(practice.get(path), 404)
    assert api.get(path).status_code in {401, 404}


@pytest.mark.parametrize("sent", ["12345678", "a" * 64, "My-Request_1.2.3"])
def test_a_valid_request_id_is_kept(api: Api, practice: Practice, sent: str) -> None:
    headers = {"X-Request-Id": sent}
    for answer in (
        practice.get(PATIENTS, headers=headers),
        practice.get(patient_path(new_uuid()), headers=headers),
        api.get(PATIENTS, headers=headers),
        api.get("/nothing", headers=headers),
        api.get("/livez", headers=headers),
    ):
        assert answer.headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["short", "a" * 65, "has space here", "semi;colon;;", "ümläute-here", ""], ids=repr)
def test_another_request_id_is_replaced(practice: Practice, sent: str) -> None:
    for path in (PATIENTS, patient_path(new_uuid()), "/nothing"):
        answer = practice.get(path, headers={"X-Request-Id": sent.encode("latin-1")})
        assert answer.headers["x-request-id"] not in {sent, sent[:64]}


@pytest.mark.parametrize("accept", ["application/problem+json", "text/html, application/problem+json;q=0.9, */*"])
def test_a_problem_document_is_sent_to_who_asks_for_it(api: Api, practice: Practice, accept: str) -> None:
    headers = {"Accept": accept}
    wrong_json = {"content": b"{", "headers": headers | {"Content-Type": "application/json"}}
    for answer, status in (
        (practice.get(patient_path(new_uuid()), headers=headers), 404),
        (practice.call("POST", PATIENTS, json={}, headers=headers), 422),
        (practice.call("POST", PATIENTS, **wrong_json), 400),
        (practice.call("DELETE", PATIENTS, headers=headers), 405),
        (api.get(PATIENTS, headers=headers), 401),
        (practice.get("/nothing", headers=headers), 404),
    ):
        assert_error(answer, status)
        assert answer.headers["content-type"].startswith("application/problem+json")


def test_a_success_is_plain_json_even_for_who_asks_for_problems(practice: Practice) -> None:
    answer = practice.get(PATIENTS, headers={"Accept": "application/problem+json, application/json"})
    assert answer.headers["content-type"].startswith("application/json")


def test_an_endless_url_is_414_and_endless_headers_are_431(practice: Practice) -> None:
    assert practice.get(f"{PATIENTS}?cursor={'x' * 17_000}").status_code in {400, 414}
    assert_error(practice.get(f"/api/v1/{'x' * 17_000}"), 414)
    many = [("X-Filler", "x")] * 250
    assert_error(practice.get(PATIENTS, headers=many), 431)
    assert_error(practice.get(PATIENTS, headers={"X-Filler": "x" * 63_000, "X-More": "x" * 3_000}), 431)
