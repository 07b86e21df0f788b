"""Sessions: rotation with a grace, re-use ends the family, logging out reaches the gateways."""

from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest
from auth_support import GATEWAY, JWT_SECRET, Caller, member

from shared.ids import new_id

REFRESH = "/api/v1/auth/refresh"
NEW_SECRET = "newer-00112233445566778899aabbccddeeff"


@pytest.fixture
def tokens(client):
    client.sign_up()
    return client.log_in().json()


def refresh(client, token: str):
    return client.call("POST", REFRESH, {"refresh_token": token})


def claims_of(document) -> dict:
    return jwt.decode(document["token"], options={"verify_signature": False})


def owner(document) -> Caller:
    claims = claims_of(document)
    return Caller(
        practice_id=claims["practice"],
        user_id=claims["sub"],
        session_id=claims["sid"],
        role=claims["role"],
        shard="a/b",
    )


def changes(client) -> list[dict]:
    return client.call("GET", "/internal/changes", caller=GATEWAY).json()["changes"]


def test_a_refresh_gives_the_next_tokens_of_the_same_session(client, tokens):
    answer = refresh(client, tokens["refresh_token"])
    assert answer.status_code == 200
    document = answer.json()
    assert document["message"] == "Token refreshed successfully!"
    assert document["expires_in"] == 3600
    assert document["refresh_token"] != tokens["refresh_token"]
    before, after = claims_of(tokens), claims_of(document)
    assert [before[name] for name in ("sub", "sid", "practice", "role")] == [
        after[name] for name in ("sub", "sid", "practice", "role")
    ]
    assert before["jti"] != after["jti"]


def test_ten_parallel_refreshes_return_one_successor(client, tokens):
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda _: refresh(client, tokens["refresh_token"]), range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    assert changes(client) == []


def test_reuse_after_the_grace_ends_the_session_for_both_holders(client, tokens, central):
    newer = refresh(client, tokens["refresh_token"]).json()
    central.rows("UPDATE auth.sessions SET rotated_at = rotated_at - interval '61 seconds'")
    assert refresh(client, tokens["refresh_token"]).status_code == 401
    refused = refresh(client, newer["refresh_token"])
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"]
    (change,) = changes(client)
    assert change["kind"] == "session-revoked"
    assert change["session_id"] == claims_of(tokens)["sid"]
    assert change["practice_id"] == claims_of(tokens)["practice"]


def test_the_grace_is_for_the_previous_token_only(client, tokens):
    second = refresh(client, tokens["refresh_token"]).json()
    third = refresh(client, second["refresh_token"]).json()
    assert refresh(client, second["refresh_token"]).json()["refresh_token"] == third["refresh_token"]
    assert refresh(client, tokens["refresh_token"]).status_code == 401
    assert refresh(client, third["refresh_token"]).status_code == 401


def test_an_expired_refresh_token_is_refused(client, tokens, central):
    central.rows("UPDATE auth.sessions SET expires_at = now()")
    assert refresh(client, tokens["refresh_token"]).status_code == 401


def test_a_forged_refresh_token_is_401_and_harms_nobody(client, tokens, subtests):
    token = tokens["refresh_token"]
    forged = [
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        ("A" if token[0] != "A" else "B") + token[1:],
        token + "=",
        token[:-4],
        token + "AAAA",
        token + "\n",
        "é" + token,
        "x",
        "a.b.c",
    ]
    for one in forged:
        with subtests.test(forged=one):
            assert refresh(client, one).status_code == 401
    assert refresh(client, token).status_code == 200


def test_an_access_token_is_no_refresh_token(client, tokens):
    assert refresh(client, tokens["token"]).status_code == 401


def test_a_session_of_a_database_restored_to_an_older_state_is_401(client, tokens, central):
    newer = refresh(client, tokens["refresh_token"]).json()
    central.rows("UPDATE auth.sessions SET generation = 0, rotated_at = NULL")
    assert refresh(client, newer["refresh_token"]).status_code == 401
    central.rows("DELETE FROM auth.sessions")
    assert refresh(client, tokens["refresh_token"]).status_code == 401


def test_logging_out_ends_the_session_and_tells_the_gateways(client, tokens):
    other = client.log_in().json()
    answer = client.call("POST", "/api/v1/auth/logout", caller=owner(tokens))
    assert answer.status_code == 200
    assert answer.json()["message"] == "Logged out successfully!"
    assert client.call("POST", "/api/v1/auth/logout", caller=owner(tokens)).status_code == 200
    assert [change["session_id"] for change in changes(client)] == [claims_of(tokens)["sid"]]
    assert refresh(client, tokens["refresh_token"]).status_code == 401
    assert refresh(client, other["refresh_token"]).status_code == 200


def test_logging_out_needs_a_session(client):
    answer = client.call("POST", "/api/v1/auth/logout")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"]
    assert client.call("POST", "/api/v1/auth/logout", caller=member(str(new_id()))).status_code == 200


def test_secrets_rotate_without_ending_sessions(start_auth):
    old = start_auth()
    old.client.sign_up()
    document = old.client.log_in().json()
    client = start_auth(jwt_secret=f"{NEW_SECRET},{JWT_SECRET}").client
    newer = refresh(client, document["refresh_token"])
    assert newer.status_code == 200

    keys = client.http.get("/.well-known/jwks.json").json()["keys"]
    assert len(keys) == 2
    assert jwt.get_unverified_header(newer.json()["token"])["kid"] == keys[0]["kid"]
    assert jwt.get_unverified_header(document["token"])["kid"] == keys[1]["kid"]
    for token, key in [(newer.json()["token"], keys[0]), (document["token"], keys[1])]:
        jwt.decode(token, jwt.PyJWK(key), algorithms=["EdDSA"], audience="gowebbo-api")

    later = start_auth(jwt_secret=NEW_SECRET).client
    assert refresh(later, newer.json()["refresh_token"]).status_code == 200
    assert refresh(later, document["refresh_token"]).status_code == 401


def test_a_session_of_a_suspended_practice_rests_but_does_not_end(client, tokens, central):
    central.rows("UPDATE auth.practices SET status = 'suspended'")
    assert refresh(client, tokens["refresh_token"]).status_code == 403
    central.rows("UPDATE auth.practices SET status = 'active'")
    assert refresh(client, tokens["refresh_token"]).status_code == 200


def test_what_a_session_notes_of_its_device_is_bounded_and_printable(client, central):
    client.sign_up()
    body = {"email": "clinic@example.com", "password": "securepassword"}
    client.call("POST", "/api/v1/practices/login", body, headers={"User-Agent": b"\x80" + b"x" * 2000})
    ((agent, address),) = central.rows("SELECT user_agent, address FROM auth.sessions")
    assert agent == "x" * 256
    assert address == "192.0.2.1"
