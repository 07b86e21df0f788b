"""Sessions, passwords and addresses, as a person meets them: by the gateway and by mail."""

import re
from collections.abc import Callable
from email.message import EmailMessage

import pytest
from e2e_api import PATIENTS, PRACTICES, REFRESH, Api, Practice, assert_error, assert_faults, assert_success
from e2e_stack import Mailbox, eventually

SESSIONS = "/api/v1/auth/sessions"
FORGOT = "/api/v1/auth/password/forgot"
RESET = "/api/v1/auth/password/reset"
CHANGE = "/api/v1/auth/password/change"
VERIFY = "/api/v1/auth/email/verify"
RESEND = "/api/v1/auth/email/resend"
NEW_PASSWORD = "another-good-password"
REVOKED_WITHIN_S = 5
ON_ITS_WAY = "If this e-mail is registered, a mail is on its way."
_TOKEN_LINE = re.compile(r"^[A-Za-z0-9_-]{43}$", re.MULTILINE)


@pytest.fixture
def joined(new_practice: Callable[..., Practice]) -> Practice:
    """A practice for one test, since its password changes."""
    return new_practice()


@pytest.fixture
def mail(mailbox: Mailbox) -> Callable[[str, str], EmailMessage]:
    """Waits for the newest mail to an address whose subject has this word."""

    def wait(address: str, word: str) -> EmailMessage:
        def found() -> list[EmailMessage]:
            return [one for one in mailbox.sent_to(address) if word in str(one["Subject"])]

        return eventually(found, f"a mail about {word} to {address}", timeout_s=15)[-1]

    return wait


def _text(message: EmailMessage) -> str:
    part = message.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


def _token(message: EmailMessage) -> str:
    [token] = _TOKEN_LINE.findall(_text(message).replace("\r\n", "\n"))
    return str(token)


def _session(api: Api, practice: Practice, *, device: str = "laptop") -> dict[str, str]:
    body = {"email": practice.email, "password": practice.password}
    entered = api.post("/api/v1/practices/login", json=body, headers={"User-Agent": device})
    assert entered.status_code == 200, entered.text
    tokens: dict[str, str] = entered.json()
    return tokens


def _assert_ended(api: Api, tokens: dict[str, str]) -> None:
    eventually(
        lambda: api.get(PATIENTS, token=tokens["token"]).status_code == 401,
        "the access token is refused",
        timeout_s=REVOKED_WITHIN_S,
    )
    assert_error(api.post(REFRESH, json={"refresh_token": tokens["refresh_token"]}), 401, "invalid-refresh-token")


def test_a_forgotten_password_is_reset_by_mail(
    api: Api, joined: Practice, mail: Callable[[str, str], EmailMessage], mailbox: Mailbox
) -> None:
    tokens = _session(api, joined)
    assert_success(api.post(FORGOT, json={"email": joined.email.upper()}), 200, ON_ITS_WAY)
    message = mail(joined.email, "Reset")
    assert "reset" in _text(message).lower()
    token = _token(message)
    body = {"token": token, "password": NEW_PASSWORD}
    assert_faults(api.post(RESET, json=body | {"password": joined.email}), "password")
    assert_success(api.post(RESET, json=body), 200, "Password reset successfully!")
    assert_error(api.post(RESET, json=body), 400, "token-not-valid")
    _assert_ended(api, tokens)
    assert_error(api.log_in(joined.email), 401)
    assert api.log_in(joined.email, NEW_PASSWORD).status_code == 200
    assert "changed" in _text(mail(joined.email, "changed"))
    others = [one for one in mailbox.sent_to(joined.email) if one is not message]
    assert len(others) >= 2
    assert not [str(one["Subject"]) for one in others if "reset" in _text(one).lower()]


def test_unknown_emails_are_answered_alike_and_often(api: Api, joined: Practice) -> None:
    answers = [api.post(FORGOT, json={"email": f"nobody{n}@example.com"}) for n in range(40)]
    answers.append(api.post(FORGOT, json={"email": joined.email}))
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}


def test_a_changed_password_ends_the_other_sessions(
    api: Api, joined: Practice, mail: Callable[[str, str], EmailMessage]
) -> None:
    other = _session(api, joined)
    wrong = {"current": "not-the-password", "password": NEW_PASSWORD}
    assert_error(joined.call("POST", CHANGE, json=wrong), 401, "wrong-credentials")
    body = {"current": joined.password, "password": NEW_PASSWORD}
    assert_success(joined.call("POST", CHANGE, json=body), 200, "Password changed successfully!")
    _assert_ended(api, other)
    assert joined.get(PATIENTS).status_code == 200
    assert api.log_in(joined.email, NEW_PASSWORD).status_code == 200
    mail(joined.email, "changed")


def test_the_commonest_passwords_are_refused(api: Api, joined: Practice) -> None:
    for password in ("password1", "12345678", "Qwertyuiop"):
        assert_faults(api.sign_up(password=password), "password")
        body = {"current": joined.password, "password": password}
        assert_faults(joined.call("POST", CHANGE, json=body), "password")


def test_an_address_is_verified_by_mail(api: Api, joined: Practice, mail: Callable[[str, str], EmailMessage]) -> None:
    first = _token(mail(joined.email, "Welcome"))
    assert joined.call("POST", RESEND).status_code == 200
    again = _token(mail(joined.email, "confirm"))
    assert_success(api.post(VERIFY, json={"token": again}), 200, "E-mail verified successfully!")
    assert_error(api.post(VERIFY, json={"token": again}), 400, "token-not-valid")
    assert first != again


def test_sessions_are_seen_and_ended(api: Api, joined: Practice) -> None:
    phone = _session(api, joined, device="phone")
    tablet = _session(api, joined, device="tablet")
    listed = assert_success(joined.get(SESSIONS), 200, "Sessions fetched successfully!", "result")["result"]["data"]
    assert [one["device"] for one in listed[:2]] == ["tablet", "phone"]
    assert [one["current"] for one in listed] == [False, False, True]
    assert {one["practice_id"] for one in listed} == {joined.id}

    assert joined.call("DELETE", f"{SESSIONS}/{listed[1]['id']}").status_code == 200
    _assert_ended(api, phone)
    assert api.get(PATIENTS, token=tablet["token"]).status_code == 200
    assert_error(joined.call("DELETE", f"{SESSIONS}/{listed[1]['id']}"), 404, "unknown-session")

    assert joined.call("DELETE", SESSIONS).status_code == 200
    _assert_ended(api, tablet)
    eventually(lambda: joined.get(PRACTICES).status_code == 401, "this session ends too", timeout_s=REVOKED_WITHIN_S)


def test_a_new_device_is_told_of_by_mail(api: Api, joined: Practice, mail: Callable[[str, str], EmailMessage]) -> None:
    _session(api, joined, device="A stranger's phone/1.0")
    text = _text(mail(joined.email, "device"))
    assert "A stranger's phone/1.0" in text
    assert "127.0.0.1" in text


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", SESSIONS), ("DELETE", SESSIONS), ("DELETE", f"{SESSIONS}/x"), ("POST", CHANGE), ("POST", RESEND)],
)
def test_ones_own_things_need_a_token(api: Api, method: str, path: str) -> None:
    assert_error(api.call(method, path, json={} if method == "POST" else None), 401)
