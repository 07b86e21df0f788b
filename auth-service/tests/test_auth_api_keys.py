"""Keys for machines: what is stored, shown, refused."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from auth_support import ANYBODY, GATEWAY, caller_of, member

from shared.api_keys import is_well_formed
from shared.ids import new_id

KEYS = "/api/v1/api-keys"
BODY = {"name": "Lab import", "permissions": ["patients:read", "patients:write"], "expires_at": None}


@pytest.fixture
def owner(client):
    client.sign_up()
    return caller_of(client.log_in())


def make(client, owner, **changed):
    answer = client.call("POST", KEYS, BODY | changed, caller=owner)
    assert answer.status_code == 201, answer.text
    return answer.json()["result"]


def ask(client, key):
    return client.call("GET", f"/internal/api-keys/{sha256(key.encode()).hexdigest()}", caller=GATEWAY)


def refusal(answer):
    return answer.status_code, answer.json()["type"].rpartition("/")[2]


def test_a_key_is_shown_once_and_stored_as_a_digest(client, central, owner):
    made = make(client, owner)
    key = made.pop("key")
    assert is_well_formed(key)
    assert key.startswith(made["prefix"])
    assert len(made["prefix"]) == 12
    (listed,) = client.call("GET", KEYS, caller=owner).json()["result"]["data"]
    assert listed == made
    assert listed["permissions"] == BODY["permissions"]
    assert (listed["expires_at"], listed["last_used_at"], listed["is_expired"]) == (None, None, False)
    for table in ("api_keys", "audit", "outbox"):
        assert key not in str(central.rows(f"SELECT * FROM auth.{table}"))
    assert ("api-key.made", "success") in central.audited()


def test_the_gateway_learns_what_a_key_may_do_and_its_use_is_noted(client, central, owner):
    expiry = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    made = make(client, owner, expires_at=expiry.isoformat())
    answer = ask(client, made["key"])
    assert answer.status_code == 200
    told = answer.json()
    assert told.pop("created_at") <= datetime.now(UTC).timestamp()
    assert told == {
        "id": made["id"],
        "practice_id": owner.practice_id,
        "permissions": BODY["permissions"],
        "expires_at": int(expiry.timestamp()),
    }
    first = central.value("SELECT last_used_at FROM auth.api_keys")
    assert first is not None
    ask(client, made["key"])
    assert central.value("SELECT last_used_at FROM auth.api_keys") == first, "once a minute"
    central.rows("UPDATE auth.api_keys SET last_used_at = now() - interval '2 minutes'")
    ask(client, made["key"])
    assert central.value("SELECT last_used_at > now() - interval '1 minute' FROM auth.api_keys")


def test_only_services_may_ask(client, owner):
    made = make(client, owner)
    path = f"/internal/api-keys/{sha256(made['key'].encode()).hexdigest()}"
    for caller in (ANYBODY, owner):
        assert client.call("GET", path, caller=caller).status_code == 404


def test_revoked_expired_and_closed_keys_are_unknown(client, central, owner):
    revoked, expired, closed = (make(client, owner, name=f"n{n}") for n in range(3))
    assert client.call("DELETE", f"{KEYS}/{revoked['id']}", caller=owner).status_code == 200
    assert central.rows("SELECT kind, session_id::text FROM auth.changes") == [("session-revoked", revoked["id"])]
    assert refusal(client.call("DELETE", f"{KEYS}/{revoked['id']}", caller=owner)) == (404, "unknown-key")
    central.rows("UPDATE auth.api_keys SET expires_at = now() WHERE id = %s", expired["id"])
    assert ask(client, revoked["key"]).status_code == 404
    assert ask(client, expired["key"]).status_code == 404
    assert ask(client, closed["key"]).status_code == 200
    central.rows("UPDATE auth.practices SET status = 'closed'")
    assert ask(client, closed["key"]).status_code == 404
    shown = {one["id"]: one["is_expired"] for one in client.call("GET", KEYS, caller=owner).json()["result"]["data"]}
    assert shown == {expired["id"]: True, closed["id"]: False}


@pytest.mark.parametrize(
    "changed",
    [
        {"name": ""},
        {"name": "x" * 101},
        {"permissions": []},
        {"permissions": ["staff:manage"]},
        {"permissions": ["patients:read", "patients:read"]},
        {"permissions": "patients:read"},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2099-01-01T00:00:00"},
        {"expires_at": "soon"},
        {"practice_id": "x"},
    ],
)
def test_what_makes_no_key(client, central, owner, changed):
    assert refusal(client.call("POST", KEYS, BODY | changed, caller=owner)) == (422, "validation")
    assert central.value("SELECT count(*) FROM auth.api_keys") == 0


def test_a_practice_has_so_many_keys_and_no_more(client, central, owner):
    make(client, owner)
    central.rows(
        "INSERT INTO auth.api_keys (id, practice_id, name, prefix, digest, permissions, created_by)"
        " SELECT gen_random_uuid(), practice_id, 'n', 'p', sha256(n::text::bytea), permissions, created_by"
        " FROM auth.api_keys, generate_series(1, 99) n"
    )
    assert refusal(client.call("POST", KEYS, BODY, caller=owner)) == (409, "too-many-keys")


def test_only_owners_manage_keys_and_only_their_own(client, owner):
    made = make(client, owner)
    calls = [("GET", KEYS, None), ("POST", KEYS, BODY), ("DELETE", f"{KEYS}/{made['id']}", None)]
    for role in ("clinician", "receptionist", "auditor"):
        for method, path, body in calls:
            caller = member(str(new_id()), role=role, practice_id=owner.practice_id)
            assert refusal(client.call(method, path, body, caller=caller)) == (403, "forbidden")
    client.sign_up("stranger@example.com")
    stranger = caller_of(client.log_in("stranger@example.com"))
    assert client.call("GET", KEYS, caller=stranger).json()["result"] == {"data": []}
    answers = [client.call("DELETE", f"{KEYS}/{one}", caller=stranger) for one in (made["id"], new_id())]
    assert [refusal(answer) for answer in answers] == [(404, "unknown-key")] * 2
    assert ask(client, made["key"]).status_code == 200
