"""Codes of an authenticator app: set up, asked for at log-in, used once, demanded by a practice."""

import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET

import pyotp
import pytest
from auth_support import JWT_SECRET, PASSWORD, caller_of, member, wait_for

from auth_service.sealing import Sealing, UnsealableError
from shared.ids import new_id

TOTP = "/api/v1/auth/totp"
POLICY = "/api/v1/practices/policy"


@pytest.fixture
def owner(client):
    client.sign_up()
    return caller_of(client.log_in())


def refusal(answer):
    return answer.status_code, answer.json()["type"].rpartition("/")[2]


def code_at(secret, *, step=0):
    """The code of this step, counted from now."""
    return pyotp.TOTP(secret).at(time.time() + 30 * step)


@pytest.fixture
def enrol(client):
    def do(caller):
        secret = client.call("POST", TOTP, caller=caller).json()["result"]["secret"]
        # a step back, so that tests have two more codes
        answer = client.call("POST", f"{TOTP}/confirm", {"code": code_at(secret, step=-1)}, caller=caller)
        assert answer.status_code == 200, answer.text
        return secret, answer.json()["result"]["recovery_codes"]

    return do


def with_code(client, code, **changed):
    body = {"email": "clinic@example.com", "password": PASSWORD, "code": code} | changed
    return client.call("POST", "/api/v1/practices/login", body)


def test_the_app_is_told_by_address_secret_and_picture(client, central, owner):
    result = client.call("POST", TOTP, caller=owner).json()["result"]
    address = urlsplit(result["uri"])
    assert (address.scheme, address.netloc) == ("otpauth", "totp")
    assert parse_qs(address.query) == {"secret": [result["secret"]], "issuer": ["GoWebbo"]}
    assert ET.fromstring(result["svg"]).tag.endswith("svg")
    assert result["secret"] not in str(central.rows("SELECT * FROM auth.second_factors"))
    assert client.log_in().status_code == 200, "nothing counts before it is confirmed"
    state = client.call("GET", TOTP, caller=owner).json()["result"]
    assert state == {"enabled": False, "recovery_codes_left": 0}


def test_log_in_asks_for_a_code_and_takes_each_once(client, central, owner, enrol):
    secret, _ = enrol(owner)
    asked = client.log_in()
    assert refusal(asked) == (401, "second-factor-required")
    assert asked.headers["WWW-Authenticate"]
    assert refusal(client.log_in(password="wrong")) == (401, "wrong-credentials"), "nobody is asked before the password"
    code = code_at(secret)
    assert with_code(client, code).status_code == 200
    assert refusal(with_code(client, code)) == (401, "wrong-code")
    assert refusal(with_code(client, code_at(secret, step=-1))) == (401, "wrong-code"), "older than one taken"
    assert with_code(client, code_at(secret, step=1)).status_code == 200
    assert refusal(with_code(client, code_at(secret, step=3))) == (401, "wrong-code")
    assert central.value("SELECT count(*) FROM auth.sessions WHERE second_factor_at IS NOT NULL") == 3
    assert ("second-factor.enabled", "success") in central.audited()


def test_of_parallel_log_ins_with_one_code_one_succeeds(client, owner, enrol):
    secret, _ = enrol(owner)
    code = code_at(secret)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: with_code(client, code), range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]


def test_recovery_codes_are_stored_as_digests_and_used_once(client, central, owner, enrol):
    _, codes = enrol(owner)
    assert len(set(codes)) == 10
    assert codes[0] not in str(central.rows("SELECT * FROM auth.recovery_codes"))
    assert with_code(client, codes[0].upper().replace("-", " ")).status_code == 200
    assert refusal(with_code(client, codes[0])) == (401, "wrong-code")
    assert client.call("GET", TOTP, caller=owner).json()["result"] == {"enabled": True, "recovery_codes_left": 9}
    renewed = client.call("POST", f"{TOTP}/recovery-codes", {"code": codes[1]}, caller=owner)
    assert len(renewed.json()["result"]["recovery_codes"]) == 10
    assert refusal(with_code(client, codes[2])) == (401, "wrong-code")
    assert with_code(client, renewed.json()["result"]["recovery_codes"][0]).status_code == 200


def test_guessing_codes_is_throttled_and_asking_for_one_is_no_failure(client, central, owner, enrol):
    secret, _ = enrol(owner)
    for _ in range(8):
        assert client.log_in().status_code == 401
    statuses = [with_code(client, "000000").status_code for _ in range(6)]
    assert statuses == [401] * 5 + [429]
    assert with_code(client, code_at(secret)).status_code == 429
    assert ("session.logged-in", "failure") in central.audited()


def test_it_is_removed_with_a_code_only(client, central, owner, enrol):
    secret, _ = enrol(owner)
    assert refusal(client.call("DELETE", TOTP, {"code": "000000"}, caller=owner)) == (401, "wrong-code")
    assert refusal(client.call("POST", TOTP, caller=owner)) == (409, "second-factor-exists")
    assert client.call("DELETE", TOTP, {"code": code_at(secret)}, caller=owner).status_code == 200
    assert client.log_in().status_code == 200
    assert central.value("SELECT count(*) FROM auth.recovery_codes") == 0
    assert refusal(client.call("DELETE", TOTP, {"code": "000000"}, caller=owner)) == (409, "no-second-factor")


def test_confirming_needs_a_right_code_of_what_was_set_up_last(client, owner):
    assert refusal(client.call("POST", f"{TOTP}/confirm", {"code": "000000"}, caller=owner)) == (
        409,
        "no-second-factor",
    )
    first = client.call("POST", TOTP, caller=owner).json()["result"]["secret"]
    second = client.call("POST", TOTP, caller=owner).json()["result"]["secret"]
    answers = [client.call("POST", f"{TOTP}/confirm", {"code": code_at(one)}, caller=owner) for one in (first, second)]
    assert [answer.status_code for answer in answers] == [401, 200]
    again = client.call("POST", f"{TOTP}/confirm", {"code": code_at(second, step=1)}, caller=owner)
    assert refusal(again) == (409, "second-factor-exists")


def test_a_new_password_does_not_remove_it(client, central, owner, enrol):
    enrol(owner)
    client.call("POST", "/api/v1/auth/password/forgot", {"email": "clinic@example.com"})
    (mail,) = wait_for(lambda: central.mailed("password.forgotten"))
    body = {"token": mail["token"], "password": "another-password"}
    assert client.call("POST", "/api/v1/auth/password/reset", body).status_code == 200
    assert refusal(client.log_in(password="another-password")) == (401, "second-factor-required")


def test_a_role_that_needs_one_can_only_set_it_up(client, central, owner, enrol):
    secret, _ = enrol(owner)
    tokens = with_code(client, code_at(secret)).json()
    central.rows("UPDATE auth.sessions SET second_factor_at = NULL")
    changed = client.call("PUT", POLICY, {"second_factor_roles": ["owner"]}, caller=owner)
    assert changed.json()["result"] == {"second_factor_roles": ["owner"]}
    assert client.call("GET", POLICY, caller=owner).json()["result"] == {"second_factor_roles": ["owner"]}
    told = central.rows("SELECT kind, count(*) FROM auth.changes GROUP BY kind")
    assert told == [("session-changed", 2)], "both of the owner's sessions"
    refreshed = client.call("POST", "/api/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    limited = caller_of(refreshed)
    assert limited.scope == "account:manage"
    for method, path in (("GET", "/api/v1/staff"), ("GET", "/api/v1/practices"), ("GET", "/api/v1/audit")):
        assert refusal(client.call(method, path, caller=limited)) == (403, "second-factor-enrolment-required")
    assert client.call("GET", TOTP, caller=limited).status_code == 200
    assert client.call("GET", "/api/v1/auth/sessions", caller=limited).status_code == 200
    assert caller_of(with_code(client, code_at(secret, step=1))).scope == "", "with a code everything is allowed"


def test_whoever_is_limited_is_free_after_setting_it_up(client, central, owner, enrol):
    central.rows("UPDATE auth.practices SET second_factor_roles = '{owner}'")
    tokens = client.log_in()
    limited = caller_of(tokens)
    assert limited.scope == "account:manage"
    enrol(limited)
    refreshed = client.call("POST", "/api/v1/auth/refresh", {"refresh_token": tokens.json()["refresh_token"]})
    assert caller_of(refreshed).scope == ""


def test_nobody_shuts_themselves_out_by_a_policy(client, owner):
    answer = client.call("PUT", POLICY, {"second_factor_roles": ["clinician", "owner"]}, caller=owner)
    assert refusal(answer) == (409, "no-second-factor")
    assert client.call("PUT", POLICY, {"second_factor_roles": ["clinician"]}, caller=owner).status_code == 200
    for wrong in (["admin"], "owner", ["owner"] * 5):
        assert client.call("PUT", POLICY, {"second_factor_roles": wrong}, caller=owner).status_code == 422
    for role in ("clinician", "receptionist", "auditor"):
        caller = member(str(new_id()), role=role, practice_id=owner.practice_id)
        assert refusal(client.call("PUT", POLICY, {"second_factor_roles": []}, caller=caller)) == (403, "forbidden")


def test_a_secret_sealed_before_a_rotation_is_sealed_anew(start_auth, central):
    old = start_auth()
    old.client.sign_up()
    caller = caller_of(old.client.log_in())
    secret = old.client.call("POST", TOTP, caller=caller).json()["result"]["secret"]
    code = code_at(secret, step=-1)
    assert old.client.call("POST", f"{TOTP}/confirm", {"code": code}, caller=caller).status_code == 200
    sealed = central.value("SELECT secret FROM auth.second_factors")
    newer = "newer-0123456789abcdef0123456789abcdef"
    rotated = start_auth(jwt_secret=f"{newer},{JWT_SECRET}")
    wait_for(lambda: central.value("SELECT secret FROM auth.second_factors") != sealed)
    assert with_code(rotated.client, code_at(secret)).status_code == 200
    alone = start_auth(jwt_secret=newer)
    assert with_code(alone.client, code_at(secret, step=1)).status_code == 200


def test_what_is_sealed_is_opened_for_its_person_only():
    one, other = new_id(), new_id()
    sealing = Sealing([JWT_SECRET.encode()])
    sealed = sealing.seal("JBSWY3DP", one)
    assert sealing.open(sealed, one) == "JBSWY3DP"
    assert not sealing.is_outdated(sealed)
    for owner, text, secret in (
        (other, sealed, JWT_SECRET),
        (one, sealed[:-4] + "AAA=", JWT_SECRET),
        (one, sealed, "x"),
    ):
        with pytest.raises(UnsealableError):
            Sealing([secret.encode()]).open(text, owner)
