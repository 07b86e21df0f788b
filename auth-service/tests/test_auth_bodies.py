"""Bodies: what is wrong is named, nothing of it is repeated, and nothing is ever a 500."""

import itertools
import json

import pytest
from auth_support import PASSWORD

SIGN_UP = "/api/v1/practices/signup"
LOG_IN = "/api/v1/practices/login"
GOOD = {"name": "Sunrise Clinic", "email": "clinic@example.com", "password": PASSWORD}
MARK = "Zq7"
"""Stands in every faulty value and must not stand in any answer."""

FAULTY = [
    ("name", ""),
    ("name", "ab"),
    ("name", "  ab  "),
    ("name", MARK * 17),
    ("name", f"{MARK}\r\nBcc: all@example.com"),
    ("name", f"{MARK}\u0000"),
    ("name", f"{MARK}\ud800"),
    ("name", f"{MARK}\u2028"),
    ("name", 123),
    ("name", None),
    ("name", [MARK]),
    ("email", ""),
    ("email", MARK),
    ("email", f"{MARK}@"),
    ("email", f"{MARK}@clinic"),
    ("email", f"{MARK} @example.com"),
    ("email", f"{MARK}@example..com"),
    ("email", f"{MARK}@exa mple.com"),
    ("email", f"{MARK}\n@example.com"),
    ("email", f"Clinic <{MARK}@example.com>"),
    ("email", f"{MARK}@example.com, other@example.com"),
    ("email", f"{MARK}{'x' * 250}@example.com"),
    ("email", f"{MARK}\ud800@example.com"),
    ("email", f"{MARK}\u0000@example.com"),
    ("email", f'"{MARK} x"@example.com'),
    ("email", f"{MARK}@[127.0.0.1]"),
    ("email", f"=?utf-8?q?{MARK}?=@example.com"),
    ("email", True),
    ("password", MARK),
    ("password", MARK * 43),
    ("password", f"{MARK}\ud800 long enough"),
    ("password", 12345678),
    ("password", {MARK: MARK}),
]

SHAPES = [
    b"",
    b"{",
    b"\xff\xfe",
    b"null",
    b"[]",
    b'"text"',
    b"1",
    b"{}",
    b'{"a":' * 10_000,
    b"[" * 100_000,
    b'{"email": NaN}',
    b'{"email": 1' + b"0" * 5000 + b"}",
    b'{"\\ud800": 1}',
    b'{"refresh_token": "\\ud800"}',
    b'{"email": "a@b.de", "password": "\\ud800"}',
]


def test_a_faulty_value_is_named_and_not_repeated(client, central, subtests):
    for field, value in FAULTY:
        with subtests.test(field=field, value=ascii(value)):
            answer = client.call("POST", SIGN_UP, GOOD | {field: value})
            assert answer.status_code == 422, answer.text
            document = answer.json()
            assert document["success"] is False
            assert document["type"] == "/errors/validation"
            assert {fault["field"] for fault in document["errors"]} == {field}
            assert MARK not in answer.text
    assert central.value("SELECT count(*) FROM auth.practices") == 0


def test_every_fault_is_listed(client):
    answer = client.call("POST", SIGN_UP, {"name": "x", "email": "x", "password": "x", "more": 1})
    assert {fault["field"] for fault in answer.json()["errors"]} == {"name", "email", "password", "more"}


def test_unknown_members_are_refused(client, subtests):
    bodies = {SIGN_UP: GOOD, LOG_IN: {"email": GOOD["email"], "password": PASSWORD}}
    members = ["id", "role", "status", "practice_id", "database_name", "is_deleted", "__proto__"]
    for path, member in itertools.product(bodies, members):
        with subtests.test(path=path, member=member):
            answer = client.call("POST", path, bodies[path] | {member: "x"})
            assert answer.status_code == 422
            assert [fault["field"] for fault in answer.json()["errors"]] == [member]


def test_a_body_of_another_shape_is_a_clients_error(client, subtests):
    for path, body in itertools.product([SIGN_UP, LOG_IN, "/api/v1/auth/refresh"], SHAPES):
        with subtests.test(path=path, body=body[:30]):
            answer = client.call("POST", path, body)
            assert answer.status_code in (400, 401, 422), answer.text
            assert answer.json()["success"] is False


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32-be"])
def test_bodies_are_utf8(client, encoding):
    body = json.dumps(GOOD).encode(encoding)
    for path in (SIGN_UP, LOG_IN):
        answer = client.call("POST", path, body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["type"]) == (400, "/errors/malformed-request")


def test_bodies_are_json(client):
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = client.call("POST", LOG_IN, json.dumps(GOOD).encode(), headers={"Content-Type": media_type})
        assert answer.status_code == 415


@pytest.mark.parametrize(
    ("name", "email", "password"),
    [
        ("abc", "a@b.co", "x" * 8),
        ("x" * 50, "very.common+tag@sub.example.co.uk", "x" * 128),
        ("Praxis Ärztehaus 診療所", "info@praxis-münchen.de", "mot de passe é"),
        ("O'Brien & Sons <b>", "o'brien@example.com", "' OR 1=1 --"),
        ("Clinic 🏥", "jörg@example.com", "\u0000\u0001\n\t   🔑"),
        ("  trimmed  ", "demo@clinic.test", "        "),
    ],
)
def test_values_at_the_edge_are_fine_and_log_in(client, name, email, password):
    answer = client.call("POST", SIGN_UP, {"name": name, "email": email, "password": password})
    assert answer.status_code == 201, answer.text
    assert answer.json()["result"]["email"] == email
    assert client.log_in(email.upper() if email.isascii() else email, password).status_code == 200


def test_the_original_paths_work_too(client):
    assert client.call("POST", "/api/v1/signup", GOOD).status_code == 201
    login = {"email": GOOD["email"], "password": PASSWORD}
    assert client.call("POST", "/api/v1/login", login).json()["token"]


def test_problem_json_for_those_who_ask(client):
    answer = client.call("POST", SIGN_UP, {}, headers={"Accept": "application/problem+json"})
    assert answer.headers["Content-Type"] == "application/problem+json"
