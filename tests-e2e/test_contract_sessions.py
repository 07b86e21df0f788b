"""Log-in, its throttles, refresh, log-out."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from e2e_api import (
    LOGIN,
    LOGOUT,
    PATIENTS,
    REFRESH,
    Api,
    Practice,
    assert_error,
    assert_faults,
    assert_success,
    without_instance,
)
from e2e_stack import EmbeddedStack, eventually

LOGIN_MESSAGE = "Login successful!"
REVOKED_WITHIN_S = 5


# log-in


@pytest.mark.parametrize("path", [LOGIN, "/api/v1/login"])
def test_log_in_answers_a_token_at_top_level(api: Api, practice: Practice, path: str) -> None:
    answer = api.post(path, json={"email": practice.email.upper(), "password": practice.password})
    session = assert_success(answer, 200, LOGIN_MESSAGE, "token", "refresh_token", "expires_in")
    assert session["token"].count(".") == 2
    assert type(session["expires_in"]) is int
    assert session["expires_in"] == 3600
    assert api.get(PATIENTS, token=session["token"]).status_code == 200


def test_a_wrong_password_and_an_unknown_email_get_one_answer(api: Api, practice: Practice) -> None:
    wrong = api.log_in(practice.email, "not-the-password")
    unknown = api.log_in("nobody-here@example.com", "not-the-password")
    assert_error(wrong, 401)
    assert_error(unknown, 401)
    assert without_instance(wrong) == without_instance(unknown)
    assert wrong.headers["www-authenticate"] == unknown.headers["www-authenticate"]
    assert {name for name in wrong.headers if name != "date"} == {name for name in unknown.headers if name != "date"}


def test_passwords_count_in_full_beyond_bcrypts_72_bytes(api: Api, new_practice: Callable[..., Practice]) -> None:
    joined = new_practice(password="x" * 100 + "right")
    assert_error(api.log_in(joined.email, "x" * 100 + "wrong"), 401)
    assert_error(api.log_in(joined.email, "x" * 72), 401)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ("email", "password")),
        ({"email": "a@example.com"}, ("password",)),
        ({"password": "12345678"}, ("email",)),
        ({"email": 1, "password": True}, ("email", "password")),
        ({"email": "a@example.com", "password": "12345678", "role": "admin"}, ("role",)),
    ],
    ids=repr,
)
def test_log_in_refuses_a_body_with_the_fields(api: Api, body: dict[str, object], fields: tuple[str, ...]) -> None:
    assert_faults(api.post(LOGIN, json=body), *fields)


def test_failed_log_ins_of_an_account_are_throttled_whether_or_not_it_exists(
    stack: EmbeddedStack, new_practice: Callable[..., Practice]
) -> None:
    """Five failures in ten minutes; the right password doesn't get through either."""
    joined = new_practice()
    elsewhere = Api(stack.url, source="127.0.0.21")
    answers = {}
    for email in (joined.email, "throttled-nobody@example.com"):
        answers[email] = [elsewhere.log_in(email, "not-the-password") for _ in range(6)]
        assert [answer.status_code for answer in answers[email]] == [401] * 5 + [429]
        assert int(answers[email][-1].headers["retry-after"]) > 0
        assert_error(answers[email][-1], 429)
    known, unknown = (answers[email][-1] for email in answers)
    assert without_instance(known) == without_instance(unknown)
    assert_error(elsewhere.log_in(joined.email), 429)
    elsewhere.close()


def test_failed_log_ins_of_an_address_are_throttled_and_others_notice_nothing(
    api: Api, stack: EmbeddedStack, practice: Practice
) -> None:
    """100 failures in ten minutes in the embedded stack. A forged header is no other address."""
    noisy = Api(stack.url, source="127.0.0.22")
    statuses = []
    for number in range(101):
        headers = {"X-Forwarded-For": f"10.0.0.{number}", "X-Client-Address": f"10.0.0.{number}"}
        body = {"email": f"no-{number}@example.com", "password": "not-the-password"}
        statuses.append(noisy.post(LOGIN, json=body, headers=headers).status_code)
    assert statuses == [401] * 100 + [429]
    noisy.close()
    assert api.log_in(practice.email).status_code == 200


# sessions


def test_refresh_answers_like_log_in_and_the_new_token_works(api: Api, new_practice: Callable[..., Practice]) -> None:
    joined = new_practice()
    answer = api.post(REFRESH, json={"refresh_token": joined.refresh_token})
    assert answer.status_code == 200, answer.text
    session = answer.json()
    assert set(session) == {"success", "status", "message", "token", "refresh_token", "expires_in"}
    assert session["refresh_token"] != joined.refresh_token
    assert api.get(PATIENTS, token=session["token"]).status_code == 200


def test_parallel_refreshes_with_one_token_get_one_successor(api: Api, new_practice: Callable[..., Practice]) -> None:
    joined = new_practice()
    with ThreadPoolExecutor(10) as pool:
        answers = list(
            pool.map(lambda _: api.post(REFRESH, json={"refresh_token": joined.refresh_token}), range(10)),
        )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1


def test_a_refresh_token_used_again_ends_its_family(api: Api, new_practice: Callable[..., Practice]) -> None:
    joined = new_practice()
    second = api.post(REFRESH, json={"refresh_token": joined.refresh_token}).json()
    third = api.post(REFRESH, json={"refresh_token": second["refresh_token"]}).json()
    assert_error(api.post(REFRESH, json={"refresh_token": joined.refresh_token}), 401)
    assert_error(api.post(REFRESH, json={"refresh_token": third["refresh_token"]}), 401)
    eventually(
        lambda: api.get(PATIENTS, token=third["token"]).status_code == 401,
        "the family's access tokens are refused",
        timeout_s=REVOKED_WITHIN_S,
    )


@pytest.mark.parametrize("token", ["", "x", "A" * 64, "a.b.c", "\u00e4" * 40], ids=repr)
def test_what_is_no_refresh_token_is_refused(api: Api, token: str) -> None:
    assert api.post(REFRESH, json={"refresh_token": token}).status_code in {401, 422}


def test_an_access_token_does_not_refresh_and_a_refresh_token_gives_no_access(api: Api, practice: Practice) -> None:
    assert api.post(REFRESH, json={"refresh_token": practice.token}).status_code in {401, 422}
    assert_error(api.get(PATIENTS, token=practice.refresh_token), 401)


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "refresh_token"), ({"refresh_token": 1}, "refresh_token")],
    ids=repr,
)
def test_refresh_needs_a_token(api: Api, body: dict[str, object], field: str) -> None:
    assert_faults(api.post(REFRESH, json=body), field)


def test_logging_out_ends_this_session_only(api: Api, new_practice: Callable[..., Practice]) -> None:
    joined = new_practice()
    other = api.log_in(joined.email).json()
    answer = api.post(LOGOUT, token=joined.token)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"success", "status", "message"}
    eventually(
        lambda: api.get(PATIENTS, token=joined.token).status_code == 401,
        "the access token is refused",
        timeout_s=REVOKED_WITHIN_S,
    )
    assert_error(api.post(REFRESH, json={"refresh_token": joined.refresh_token}), 401)
    assert api.get(PATIENTS, token=other["token"]).status_code == 200
    assert api.post(REFRESH, json={"refresh_token": other["refresh_token"]}).status_code == 200


def test_logging_out_needs_a_token(api: Api) -> None:
    assert_error(api.post(LOGOUT), 401)
