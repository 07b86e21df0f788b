"""Passwords forgotten, reset and changed; addresses verified; devices noticed; sessions listed and ended."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from auth_support import ADMIN, ANYBODY, NOTIFIER, PASSWORD, Caller, caller_of, member, wait_for

from auth_service import password_change
from auth_service.common_passwords import is_common
from auth_service.reconciler import Reconciler
from shared.events import DEVICE_SEEN, EMAIL_UNVERIFIED, PASSWORD_CHANGED, PASSWORD_FORGOTTEN, PRACTICE_REGISTERED
from shared.ids import new_id

EMAIL = "clinic@example.com"
WIDE_EMAIL = "".join(chr(ord(one) + 0xFEE0) for one in EMAIL)
"""As some keyboards of East Asia write it."""
NEW = "another-password"
FORGOT, RESET, CHANGE = (f"/api/v1/auth/password/{deed}" for deed in ("forgot", "reset", "change"))
VERIFY, RESEND = "/api/v1/auth/email/verify", "/api/v1/auth/email/resend"
SESSIONS = "/api/v1/auth/sessions"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture
def owner(client):
    client.sign_up()
    return caller_of(client.log_in())


@pytest.fixture
def forgotten(client, central, owner):
    """The token of a mail for a new password."""

    def ask(count=1):
        assert client.call("POST", FORGOT, {"email": EMAIL.upper()}).status_code == 200
        return wait_for(lambda: len(found := central.mailed(PASSWORD_FORGOTTEN)) == count and found)[-1]["token"]

    return ask


def refusal(answer):
    return answer.status_code, answer.json()["type"].rpartition("/")[2]


# -- forgotten and reset


def test_a_forgotten_password_is_set_anew_by_a_mails_token(client, central, owner, forgotten):
    tokens = client.log_in().json()
    token = forgotten()
    assert central.mailed(PASSWORD_FORGOTTEN) == [{"name": "Sunrise Clinic", "email": EMAIL, "token": token}]
    assert token not in str(central.rows("SELECT * FROM auth.mail_tokens"))
    assert client.call("POST", RESET, {"token": token, "password": NEW}).status_code == 200
    assert refusal(client.log_in()) == (401, "wrong-credentials")
    refresh = client.call("POST", "/api/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    assert refusal(refresh) == (401, "invalid-refresh-token")
    assert central.rows("SELECT kind, count(*) FROM auth.changes GROUP BY kind") == [("session-revoked", 2)]
    assert client.log_in(password=NEW).status_code == 200
    (told,) = central.mailed(PASSWORD_CHANGED)
    assert (told["email"], told["address"]) == (EMAIL, "192.0.2.1")
    assert central.value("SELECT email_verified_at IS NOT NULL FROM auth.people")
    assert central.value("SELECT pr.password = pe.password FROM auth.practices pr, auth.people pe")
    assert {("password.forgotten", "success"), ("password.reset", "success")} <= set(central.audited())


def test_a_token_is_good_once_in_time_and_only_the_newest(client, central, owner, forgotten):
    first, second = forgotten(1), forgotten(2)
    for token in (first, "nonsense", "x" * 200):
        assert refusal(client.call("POST", RESET, {"token": token, "password": NEW})) == (400, "token-not-valid")
    assert client.call("POST", RESET, {"token": second, "password": NEW}).status_code == 200
    assert refusal(client.call("POST", RESET, {"token": second, "password": "x-" + NEW})) == (400, "token-not-valid")
    late = forgotten(3)
    life = "SELECT max(expires_at - created_at)::text FROM auth.mail_tokens WHERE purpose = 'reset-password'"
    assert central.value(life) == "00:30:00"
    central.rows("UPDATE auth.mail_tokens SET expires_at = now()")
    assert refusal(client.call("POST", RESET, {"token": late, "password": NEW})) == (400, "token-not-valid")


def test_of_parallel_resets_one_succeeds(client, forgotten):
    token = forgotten()
    with ThreadPoolExecutor(4) as threads:
        bodies = [{"token": token, "password": f"{NEW}-{n}"} for n in range(4)]
        answers = list(threads.map(lambda body: client.call("POST", RESET, body), bodies))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]


def test_a_token_for_one_thing_is_not_good_for_another(client, central, forgotten):
    token = forgotten()
    verifying = central.mailed(PRACTICE_REGISTERED)[0]["token"]
    assert refusal(client.call("POST", VERIFY, {"token": token})) == (400, "token-not-valid")
    assert refusal(client.call("POST", RESET, {"token": verifying, "password": NEW})) == (400, "token-not-valid")


def test_wrong_tokens_cost_no_hash(auth, owner, monkeypatch):
    async def never(*_):
        raise AssertionError

    monkeypatch.setattr(auth.app.state.rules.password_change._hasher, "hash", never)
    assert auth.client.call("POST", RESET, {"token": "nonsense", "password": NEW}).status_code == 400


def test_nobody_learns_whose_an_email_is(client, owner):
    known, unknown = (client.call("POST", FORGOT, {"email": one}) for one in (EMAIL, "nobody@example.com"))
    assert known.status_code == unknown.status_code == 200
    assert known.json() == unknown.json()


@pytest.mark.parametrize("deed", ["forgot", "login"])
def test_two_hundred_tries_do_not_tell_known_from_unknown(start_auth, central, deed):
    """Of each account its first try, which has most to do: later ones are refused, or get no mail. In turns."""
    client = start_auth(login_failures_per_address=10_000).client
    client.sign_up()
    central.add_people(100)

    def answer_s(email):
        begin = time.perf_counter()
        if deed == "forgot":
            assert client.call("POST", FORGOT, {"email": email}).status_code == 200
        else:
            assert client.log_in(email, "wrong").status_code == 401
        return time.perf_counter() - begin

    pairs = [(answer_s(f"known{n}@example.com"), answer_s(f"unknown{n}@example.com")) for n in range(1, 101)]
    known_s, unknown_s = map(statistics.median, zip(*pairs, strict=True))
    # 5 ms; on a slow machine a tenth: a password that isn't looked at saves nearly all of it
    assert abs(known_s - unknown_s) < max(0.005, known_s / 10)


def test_what_a_mail_costs_is_done_after_the_answer(auth, central, owner):
    """However long it takes: here until the test says so."""
    with central.transaction() as cursor:
        cursor.execute("LOCK TABLE auth.mail_tokens IN EXCLUSIVE MODE")
        assert auth.client.call("POST", FORGOT, {"email": EMAIL}).status_code == 200
        assert central.mailed(PASSWORD_FORGOTTEN) == []
    wait_for(lambda: central.mailed(PASSWORD_FORGOTTEN))


def test_of_all_tokens_mailed_at_once_one_is_good(auth, central, owner):
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(lambda _: auth.client.call("POST", FORGOT, {"email": EMAIL}), range(10)))
    wait_for(lambda: not auth.app.state.rules.password_change._sending)
    tokens = [mail["token"] for mail in central.mailed(PASSWORD_FORGOTTEN)]
    assert len(tokens) == password_change.MOST_MAILS
    usable = "SELECT count(*) FROM auth.mail_tokens WHERE purpose = 'reset-password' AND used_at IS NULL"
    assert central.value(usable) == 1


def test_a_person_gets_so_many_mails_and_no_more(auth, central, owner, forgotten):
    for count in range(1, password_change.MOST_MAILS + 1):
        forgotten(count)
    auth.client.call("POST", FORGOT, {"email": EMAIL})
    wait_for(lambda: not auth.app.state.rules.password_change._sending)
    assert len(central.mailed(PASSWORD_FORGOTTEN)) == password_change.MOST_MAILS


def test_an_address_asks_so_often_and_no_more(start_auth):
    client = start_auth(password_mails_per_address=2).client
    statuses = [client.call("POST", FORGOT, {"email": f"n{n}@example.com"}).status_code for n in range(3)]
    assert statuses == [200, 200, 429]


# -- changed


def test_a_password_is_changed_by_whoever_knows_it(client, central, owner):
    other = caller_of(client.log_in())
    body = {"current": PASSWORD, "password": NEW}
    assert client.call("POST", CHANGE, body, caller=owner).status_code == 200
    assert client.log_in(password=NEW).status_code == 200
    assert refusal(client.log_in()) == (401, "wrong-credentials")
    revoked = central.rows("SELECT session_id::text FROM auth.changes")
    assert revoked == [(other.session_id,)], "this session goes on"
    assert len(central.mailed(PASSWORD_CHANGED)) == 1


def test_guessing_the_current_password_is_throttled_as_log_in_is(client, central, owner):
    body = {"current": "not-it", "password": NEW}
    statuses = [client.call("POST", CHANGE, body, caller=owner).status_code for _ in range(6)]
    assert statuses == [401] * 5 + [429]
    assert client.log_in().status_code == 429
    assert central.mailed(PASSWORD_CHANGED) == []
    assert ("password.changed", "failure") in central.audited()


def test_a_session_opened_with_the_old_password_does_not_survive_the_new_one(auth, central, owner):
    """A log-in that has checked the old password waits for the change, and finds another password then."""
    with central.transaction() as cursor, ThreadPoolExecutor(1) as threads:
        cursor.execute("UPDATE auth.people SET password = 'changed'")
        logging_in = threads.submit(auth.client.log_in)
        wait_for(lambda: central.value(WAITING))
        cursor.connection.commit()
        assert refusal(logging_in.result()) == (401, "wrong-credentials")
    assert central.value("SELECT count(*) FROM auth.sessions") == 1


def test_a_reset_ends_a_session_that_a_log_in_is_just_opening(client, central, owner, forgotten):
    token = forgotten()
    with central.transaction() as cursor, ThreadPoolExecutor(2) as threads:
        cursor.execute("LOCK TABLE auth.audit IN EXCLUSIVE MODE")  # the last table that a log-in writes to
        logging_in = threads.submit(client.log_in)
        wait_for(lambda: central.value(WAITING) == 1)
        resetting = threads.submit(client.call, "POST", RESET, {"token": token, "password": NEW})
        wait_for(lambda: central.value(WAITING) == 2)
        cursor.connection.commit()
        assert resetting.result().status_code == 200
        opened = caller_of(logging_in.result())
    ended = {session for (session,) in central.rows("SELECT session_id::text FROM auth.changes")}
    assert ended == {owner.session_id, opened.session_id}


def test_an_access_token_that_outlives_its_session_is_refused_too(client, central, owner):
    other = caller_of(client.log_in())
    central.rows("UPDATE auth.sessions SET expires_at = now() WHERE id = %s", other.session_id)
    body = {"current": PASSWORD, "password": NEW}
    assert client.call("POST", CHANGE, body, caller=owner).status_code == 200
    assert central.rows("SELECT session_id::text FROM auth.changes") == [(other.session_id,)]


def test_somebody_who_is_gone_changes_nothing(client, owner):
    gone = member(str(new_id()))
    body = {"current": PASSWORD, "password": NEW}
    assert refusal(client.call("POST", CHANGE, body, caller=gone)) == (401, "unauthenticated")
    assert refusal(client.call("POST", RESEND, caller=gone)) == (401, "unauthenticated")


@pytest.mark.parametrize("caller", [ANYBODY, ADMIN, Caller(role="api-key", scope="patients:read")])
def test_only_people_have_passwords_addresses_and_sessions(client, caller):
    calls = [("POST", CHANGE), ("POST", RESEND), ("GET", SESSIONS), ("DELETE", SESSIONS)]
    for method, path in [*calls, ("DELETE", f"{SESSIONS}/{new_id()}")]:
        body = {"current": PASSWORD, "password": NEW} if path == CHANGE else None
        assert client.call(method, path, body, caller=caller).status_code == 403


@pytest.mark.parametrize(
    ("password", "fault"),
    [
        ("password123", "commonest"),
        ("PASSWORD123", "commonest"),
        ("password\uff11\uff12\uff13", "commonest"),
        ("short", "8"),
    ],
)
def test_common_and_short_passwords_are_refused_everywhere(client, owner, forgotten, password, fault):
    token = forgotten()
    answers = [
        client.sign_up("other@example.com", password=password),
        client.call("POST", RESET, {"token": token, "password": password}),
        client.call("POST", CHANGE, {"current": PASSWORD, "password": password}, caller=owner),
    ]
    for answer in answers:
        assert refusal(answer) == (422, "validation")
        assert answer.json()["errors"][0]["field"] == "password"
        assert fault in answer.json()["errors"][0]["message"]
        assert password not in answer.text
    assert client.call("POST", RESET, {"token": token, "password": NEW}).status_code == 200, "the token is still good"


def test_the_list_of_common_passwords():
    assert is_common("12345678")
    assert is_common("Trustno1")
    assert not is_common(PASSWORD), "the original's own example"
    assert not is_common("# MIT License")


@pytest.mark.parametrize("password", [EMAIL, EMAIL.upper(), "sunrise clinic", " Sunrise Clinic ", WIDE_EMAIL])
def test_a_password_is_not_the_email_or_the_name(client, owner, forgotten, password):
    token = forgotten()
    answers = [
        client.sign_up(password=password),
        client.call("POST", RESET, {"token": token, "password": password}),
        client.call("POST", CHANGE, {"current": PASSWORD, "password": password}, caller=owner),
    ]
    for answer in answers:
        assert refusal(answer) == (422, "validation")
        assert [fault["field"] for fault in answer.json()["errors"]] == ["password"]
    assert client.call("POST", RESET, {"token": token, "password": NEW}).status_code == 200, "the token is still good"


def test_a_token_is_taken_as_people_copy_it(client, forgotten):
    assert client.call("POST", RESET, {"token": f" {forgotten()} ", "password": NEW}).status_code == 200


@pytest.mark.parametrize("token", ["", "\ud800", "a\u0000b", "x" * 201, 1, None])
def test_what_is_no_token_at_all_is_invalid(client, token):
    for path, more in ((RESET, {"password": NEW}), (VERIFY, {})):
        assert refusal(client.call("POST", path, {"token": token, **more})) == (422, "validation")


def test_what_failed_is_noted_too(auth, central):
    client = auth.client
    client.call("POST", FORGOT, {"email": "nobody@example.com"})
    client.call("POST", RESET, {"token": "nonsense", "password": NEW})
    client.call("POST", VERIFY, {"token": "nonsense"})
    deeds = ["password.forgotten", "password.reset", "email.verified"]
    wait_for(lambda: sorted(central.audited()) == sorted((deed, "failure") for deed in deeds))


# -- verified


def test_an_address_is_verified_by_the_welcome_mails_token(client, central, owner):
    token = central.mailed(PRACTICE_REGISTERED)[0]["token"]
    assert client.call("POST", VERIFY, {"token": token}).status_code == 200
    assert central.value("SELECT email_verified_at IS NOT NULL FROM auth.people")
    assert refusal(client.call("POST", VERIFY, {"token": token})) == (400, "token-not-valid")
    assert ("email.verified", "success") in central.audited()
    assert client.call("POST", RESEND, caller=owner).status_code == 200
    assert central.mailed(EMAIL_UNVERIFIED) == [], "there is nothing to verify any more"


def test_the_mail_is_sent_again_some_times(client, central, owner):
    statuses = [client.call("POST", RESEND, caller=owner).status_code for _ in range(5)]
    assert statuses == [200] * 4 + [429], "the welcome mail was the first"
    mail = central.mailed(EMAIL_UNVERIFIED)[0]
    assert client.call("POST", VERIFY, {"token": mail["token"]}).status_code == 200


def test_an_operator_may_want_addresses_to_be_verified_first(start_auth, central):
    lenient = start_auth().client
    lenient.sign_up()
    entered = lenient.log_in()
    refresh = ("POST", "/api/v1/auth/refresh", {"refresh_token": entered.json()["refresh_token"]})
    switch = ("POST", "/api/v1/auth/switch", {"practice_id": caller_of(entered).practice_id})
    client = start_auth(unverified_may_work=False).client
    assert refusal(client.log_in(password="wrong")) == (401, "wrong-credentials")
    assert refusal(client.log_in()) == (403, "email-not-verified")
    assert central.audited()[-2:] == [("session.logged-in", "failure"), ("email.verification-sent", "success")]
    assert refusal(client.call(*refresh)) == (403, "email-not-verified")
    assert refusal(client.call(*switch, caller=caller_of(entered))) == (403, "email-not-verified")
    assert central.value("SELECT count(*) FROM auth.sessions") == 1
    token = central.mailed(EMAIL_UNVERIFIED)[0]["token"]
    assert client.call("POST", VERIFY, {"token": token}).status_code == 200
    assert client.log_in().status_code == 200
    assert client.call(*switch, caller=caller_of(entered)).status_code == 200
    assert client.call(*refresh).status_code == 200


def test_a_token_is_forgotten_when_its_mail_is_out(client, central, owner):
    event = central.value("SELECT event::text FROM auth.outbox")
    receipt = {"event_id": event, "outcome": "delivered"}
    assert client.call("POST", "/internal/receipts", receipt, caller=NOTIFIER).status_code == 200
    assert central.mailed(PRACTICE_REGISTERED) == [{"name": "Sunrise Clinic", "email": EMAIL}]


# -- devices and sessions


def test_a_new_device_is_told_of_and_the_first_one_is_not(client, central, owner):
    for _ in range(2):
        client.log_in(headers={"User-Agent": "Firefox"})
    client.log_in()
    (told,) = central.mailed(DEVICE_SEEN)
    assert (told["device"], told["address"], told["email"]) == ("Firefox", "192.0.2.1", EMAIL)
    client.log_in(password="wrong", headers={"User-Agent": "Chrome"})
    assert len(central.mailed(DEVICE_SEEN)) == 1, "nobody logged in"
    client.log_in(headers={"User-Agent": ""})
    assert central.mailed(DEVICE_SEEN)[1]["device"] == "unknown"


def test_parallel_log_ins_of_a_new_device_are_told_once(client, central, owner):
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda _: client.log_in(headers={"User-Agent": "Firefox"}), range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(central.mailed(DEVICE_SEEN)) == 1


def test_sessions_are_listed_and_ended_one_by_one(client, central, owner):
    other = caller_of(client.log_in(headers={"User-Agent": "Firefox"}))
    data = client.call("GET", SESSIONS, caller=owner).json()["result"]["data"]
    assert (data[0]["id"], data[0]["current"], data[0]["device"]) == (other.session_id, False, "Firefox")
    assert data[1]["current"] is True
    assert {one["practice_id"] for one in data} == {owner.practice_id}
    assert client.call("DELETE", f"{SESSIONS}/{other.session_id}", caller=owner).status_code == 200
    assert central.rows("SELECT kind, session_id::text FROM auth.changes") == [("session-revoked", other.session_id)]
    assert len(client.call("GET", SESSIONS, caller=owner).json()["result"]["data"]) == 1
    again = client.call("DELETE", f"{SESSIONS}/{other.session_id}", caller=owner)
    assert refusal(again) == (404, "unknown-session")


def test_the_list_of_sessions_has_pages_of_live_ones(client, central, owner):
    opened = [owner.session_id, *(caller_of(client.log_in()).session_id for _ in range(5))]
    central.rows("UPDATE auth.sessions SET expires_at = now() WHERE id = %s", opened.pop(2))
    seen, query = [], "?limit=2"
    while query:
        answer = client.call("GET", SESSIONS + query, caller=owner)
        result = answer.json()["result"]
        seen += [one["id"] for one in result["data"]]
        query = f"?limit=2&cursor={result['next_cursor']}" if "next_cursor" in result else ""
        assert ("Link" in answer.headers) == bool(query)
    assert seen == opened[::-1]
    assert refusal(client.call("GET", f"{SESSIONS}?cursor=x", caller=owner)) == (400, "malformed-cursor")


def test_other_peoples_sessions_are_unknown(client, owner):
    client.sign_up("stranger@example.com")
    stranger = caller_of(client.log_in("stranger@example.com"))
    answers = [client.call("DELETE", f"{SESSIONS}/{one}", caller=stranger) for one in (owner.session_id, new_id())]
    assert [refusal(answer) for answer in answers] == [(404, "unknown-session")] * 2
    assert len(client.call("GET", SESSIONS, caller=owner).json()["result"]["data"]) == 1


def test_logging_out_everywhere_ends_all(client, central, owner):
    for _ in range(2):
        client.log_in()
    assert client.call("DELETE", SESSIONS, caller=owner).status_code == 200
    assert central.value("SELECT count(*) FROM auth.changes WHERE kind = 'session-revoked'") == 3
    assert client.call("GET", SESSIONS, caller=owner).json()["result"]["data"] == []


def test_a_refresh_tells_where_the_session_is_now(client, owner):
    answer = client.log_in()
    body = {"refresh_token": answer.json()["refresh_token"]}
    elsewhere = caller_of(answer, session_id="", user_id="", role="anonymous", client_address="192.0.2.9")
    assert client.call("POST", "/api/v1/auth/refresh", body, caller=elsewhere).status_code == 200
    data = client.call("GET", SESSIONS, caller=owner).json()["result"]["data"]
    assert data[0]["address"] == "192.0.2.9"


def test_what_is_old_is_pruned(database, central, owner):
    central.rows("UPDATE auth.mail_tokens SET expires_at = now() - interval '2 days'")
    central.rows("UPDATE auth.known_devices SET last_seen_at = now() - interval '2 years'")
    Reconciler(database, shards=None, changes_kept_s=60)._prune()
    assert central.value("SELECT count(*) FROM auth.mail_tokens") == 0
    assert central.value("SELECT count(*) FROM auth.known_devices") == 0
