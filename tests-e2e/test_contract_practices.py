"""The API's rows about practices: each success, each error, to the letter."""

from collections.abc import Callable

import pytest
from e2e_api import (
    ADMIN_PRACTICES,
    LOGIN,
    PASSWORD,
    PATIENTS,
    PRACTICES,
    REFRESH,
    SIGNUP,
    Api,
    Practice,
    assert_error,
    assert_faults,
    assert_success,
    new_sign_up,
)
from e2e_stack import EmbeddedStack

SIGN_UP_MESSAGE = "Practice registered successfully!"


# sign-up


@pytest.mark.parametrize("path", [SIGNUP, "/api/v1/signup"])
def test_sign_up_answers_the_practice(api: Api, path: str) -> None:
    body = new_sign_up()
    answer = assert_success(api.post(path, json=body), 201, SIGN_UP_MESSAGE, "result")
    assert {"id", "name", "email"} <= set(answer["result"])
    assert (answer["result"]["name"], answer["result"]["email"]) == (body["name"], body["email"])
    assert PASSWORD not in str(answer)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "abc"},
        {"name": "x" * 50},
        {"name": "Ärzte für Ältere 診療所 🏥"},
        {"name": "Robert'); DROP TABLE practices;--"},
        {"name": "practice'\"`;$$ \\"},
        {"password": "kx7-pqz9"},
        {"password": "p" * 128},
        {"password": "пароль секретный 密码 🔐"},
        {"password": " spaces stay "},
        {"password": "密" * 128},
    ],
    ids=repr,
)
def test_sign_up_accepts_and_log_in_works_with(api: Api, change: dict[str, str]) -> None:
    body = new_sign_up() | change
    joined = api.post(SIGNUP, json=body)
    assert_success(joined, 201, SIGN_UP_MESSAGE, "result")
    assert joined.json()["result"]["name"] == body["name"]
    assert api.log_in(body["email"], body["password"]).status_code == 200


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "ab"}, "name"),
        ({"name": "x" * 51}, "name"),
        ({"name": "    "}, "name"),
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"name": 12345}, "name"),
        ({"name": ["abc"]}, "name"),
        ({"name": "abc\u0000def"}, "name"),
        ({"name": "abc\r\nBcc: x@example.com"}, "name"),
        ({"email": "not an address"}, "email"),
        ({"email": "a@"}, "email"),
        ({"email": "a@b@example.com"}, "email"),
        ({"email": ""}, "email"),
        ({"email": None}, "email"),
        ({"email": 7}, "email"),
        ({"email": "a@example.com\r\nBcc: x@example.com"}, "email"),
        ({"email": f"{'a' * 300}@example.com"}, "email"),
        ({"password": "1234567"}, "password"),
        ({"password": "p" * 129}, "password"),
        ({"password": ""}, "password"),
        ({"password": None}, "password"),
        ({"password": 12345678}, "password"),
        ({"id": "018f0000-0000-7000-8000-000000000000"}, "id"),
        ({"role": "admin"}, "role"),
        ({"is_deleted": 0}, "is_deleted"),
        ({"database_name": "postgres"}, "database_name"),
        ({"status": "active"}, "status"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_sign_up_refuses_with_the_field(api: Api, change: dict[str, object], field: str) -> None:
    assert_faults(api.sign_up(**change), field)


@pytest.mark.parametrize("field", ["name", "email", "password"])
@pytest.mark.parametrize("path", [SIGNUP, "/api/v1/signup"])
def test_sign_up_needs(api: Api, path: str, field: str) -> None:
    body = new_sign_up()
    del body[field]
    assert_faults(api.post(path, json=body), field)


def test_sign_up_lists_every_fault_and_echoes_no_value(api: Api) -> None:
    body = {"name": "qx", "email": "qx-no-address", "password": "qxqxqx", "qx_extra": "qx-value"}
    answer = api.post(SIGNUP, json=body)
    assert_faults(answer, "name", "email", "password", "qx_extra")
    assert all(value not in answer.text for value in ("qx-no-address", "qxqxqx", "qx-value", '"qx"'))


@pytest.mark.parametrize("change_case", [str, str.upper, str.title])
def test_a_taken_email_is_a_conflict_whatever_its_case(
    api: Api, practice: Practice, change_case: Callable[[str], str]
) -> None:
    assert_error(api.sign_up(email=change_case(practice.email)), 409)


def test_an_email_is_returned_as_it_was_written(api: Api) -> None:
    email = f"MiXed.{new_sign_up()['email']}"
    assert api.sign_up(email=email).json()["result"]["email"] == email
    assert api.log_in(email.lower()).status_code == 200


# practices


def test_a_practice_sees_only_itself(practice: Practice, other_practice: Practice) -> None:
    answer = assert_success(practice.get(PRACTICES), 200, "Practices fetched successfully!", "result")
    [itself] = answer["result"]["data"]
    assert (itself["id"], itself["name"], itself["email"]) == (practice.id, practice.name, practice.email)
    assert other_practice.id not in str(answer)
    assert "database_name" not in itself


@pytest.mark.parametrize("path", [PRACTICES, ADMIN_PRACTICES])
def test_the_admin_sees_all_practices_page_by_page(
    api: Api, admin: tuple[str, str], practice: Practice, other_practice: Practice, path: str
) -> None:
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        answer = api.get(path, auth=admin, params=query)
        result = assert_success(answer, 200, "Practices fetched successfully!", "result")["result"]
        assert len(result["data"]) <= 2
        assert all({"id", "name", "email"} <= set(one) for one in result["data"])
        assert all("password" not in one for one in result["data"])
        seen += [one["id"] for one in result["data"]]
        cursor = result.get("next_cursor")
        assert ('rel="next"' in answer.headers.get("link", "")) == bool(cursor)
        if not cursor:
            break
        assert len(result["data"]) == 2
        assert answer.links["next"]["url"].startswith(path)
    assert len(seen) == len(set(seen))
    assert {practice.id, other_practice.id} <= set(seen)


@pytest.mark.parametrize("path", [PRACTICES, ADMIN_PRACTICES])
@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"limit": "0"}, 422),
        ({"limit": "1001"}, 422),
        ({"limit": "ten"}, 422),
        ({"cursor": "not a cursor"}, 400),
        ({"cursor": "W10"}, 400),
    ],
    ids=str,
)
def test_the_admins_list_refuses(
    api: Api, admin: tuple[str, str], path: str, query: dict[str, str], status: int
) -> None:
    assert_error(api.get(path, auth=admin, params=query), status)


@pytest.mark.parametrize(("path", "source"), [(PRACTICES, "127.0.0.23"), (ADMIN_PRACTICES, "127.0.0.24")])
def test_bad_basic_credentials_are_refused(
    stack: EmbeddedStack, admin: tuple[str, str], path: str, source: str
) -> None:
    elsewhere = Api(stack.url, source=source)
    for credentials in ((admin[0], "wrong-password"), ("wrong-name", admin[1]), ("", "")):
        answer = elsewhere.get(path, auth=credentials)
        assert_error(answer, 401)
        assert "basic" in answer.headers["www-authenticate"].lower()
    elsewhere.close()


def test_the_admin_has_no_way_to_patients(api: Api, admin: tuple[str, str], practice: Practice) -> None:
    patient = practice.new_patient()
    for path in (PATIENTS, f"{PATIENTS}/{patient['id']}"):
        assert api.get(path, auth=admin).status_code in {401, 403}


def test_a_practice_has_no_way_to_the_admins_routes(practice: Practice) -> None:
    for path in (ADMIN_PRACTICES, "/api/v1/admin/servers", "/api/v1/admin/shards"):
        answer = practice.get(path)
        assert answer.status_code in {401, 403}, answer.text
        assert "result" not in answer.json()


# what holds for every route about practices


@pytest.mark.parametrize("path", [SIGNUP, LOGIN, REFRESH, "/api/v1/signup", "/api/v1/login"])
class TestBodies:
    @pytest.mark.parametrize("content", [b"", b"{", b"{'a': 1}", b'{"name": "\xff"}', b"\x00", b"not json"], ids=repr)
    def test_what_is_not_json_is_400(self, api: Api, path: str, content: bytes) -> None:
        answer = api.post(path, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == (400 if content else answer.status_code)
        assert answer.status_code in {400, 422}

    @pytest.mark.parametrize("content", [b"[]", b'"text"', b"1", b"null", b"true"], ids=repr)
    def test_json_that_is_no_object_is_422(self, api: Api, path: str, content: bytes) -> None:
        assert_error(api.post(path, content=content, headers={"Content-Type": "application/json"}), 422)

    @pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
    def test_another_media_type_is_415(self, api: Api, path: str, media_type: str) -> None:
        assert_error(api.post(path, content=b"{}", headers={"Content-Type": media_type}), 415)

    def test_a_body_above_two_megabytes_is_413(self, api: Api, path: str) -> None:
        content = b'{"name": "' + b"x" * 2_100_000 + b'"}'
        assert_error(api.post(path, content=content, headers={"Content-Type": "application/json"}), 413)

    @pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
    def test_another_method_is_405_and_the_allowed_ones_are_named(self, api: Api, path: str, method: str) -> None:
        answer = api.call(method, path)
        assert_error(answer, 405)
        assert "POST" in answer.headers["allow"]

    def test_a_problem_document_is_sent_to_who_asks_for_it(self, api: Api, path: str) -> None:
        answer = api.post(path, json={}, headers={"Accept": "application/problem+json"})
        assert_error(answer, 422, "validation")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_the_list_of_practices_can_only_be_read(practice: Practice, method: str) -> None:
    answer = practice.call(method, PRACTICES)
    assert_error(answer, 405)
    assert "GET" in answer.headers["allow"]
