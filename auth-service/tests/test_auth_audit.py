"""The audit: who reads what, and that nobody changes it."""

from datetime import UTC, datetime, timedelta

import psycopg2
import pytest
from auth_support import ADMIN, ANYBODY, PASSWORD, caller_of, member

from shared.context import Caller
from shared.ids import new_id

AUDIT = "/api/v1/audit"


@pytest.fixture
def owner(client):
    client.sign_up()
    return caller_of(client.log_in())


def entries(client, caller, **query):
    answer = client.call("GET", AUDIT, caller=caller, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]["data"]


def test_an_owner_reads_what_happened_the_newest_first(client, owner):
    wrong = client.log_in(password="wrong", headers={"User-Agent": "Curl/8", "X-Request-Id": "journey-0001"})
    assert wrong.status_code == 401
    found = entries(client, owner)
    assert [(one["action"], one["outcome"]) for one in found] == [
        ("session.logged-in", "failure"),
        ("session.logged-in", "success"),
        ("practice.signed-up", "success"),
    ]
    failure = found[0]
    assert (failure["actor"], failure["person_id"]) == ("anonymous", owner.user_id)
    assert (failure["address"], failure["user_agent"]) == (ANYBODY.client_address, "Curl/8")
    assert failure["request_id"] == "journey-0001"
    assert failure["practice_id"] == owner.practice_id
    assert datetime.fromisoformat(failure["at"]) <= datetime.now(UTC)
    assert found[1]["target"] == owner.session_id


def test_a_practice_sees_its_own_and_the_admin_all(client, owner):
    client.sign_up("stranger@example.com")
    stranger = caller_of(client.log_in("stranger@example.com"))
    client.log_in("nobody@example.com", "a-mistyped-secret")
    for caller in (owner, stranger):
        assert {one["practice_id"] for one in entries(client, caller)} == {caller.practice_id}
    assert entries(client, owner, practice_id=stranger.practice_id) == []
    everything = entries(client, ADMIN)
    assert {one["practice_id"] for one in everything} == {owner.practice_id, stranger.practice_id, None}
    assert len(entries(client, ADMIN, practice_id=owner.practice_id)) == 2
    assert "nobody" not in str(everything)
    assert "a-mistyped-secret" not in str(everything)


def test_roles_that_may_not_read_it(client, owner):
    for role, status in (("auditor", 200), ("clinician", 403), ("receptionist", 403)):
        caller = member(str(new_id()), role=role, practice_id=owner.practice_id)
        assert client.call("GET", AUDIT, caller=caller).status_code == status
    key = Caller(role="api-key", practice_id=owner.practice_id, session_id=str(new_id()), scope="audit:read")
    assert client.call("GET", AUDIT, caller=key).status_code == 200
    blind = Caller(role="api-key", practice_id=owner.practice_id, session_id=str(new_id()), scope="patients:read")
    assert client.call("GET", AUDIT, caller=blind).status_code == 403
    assert client.call("GET", AUDIT, caller=ANYBODY).status_code == 403


def test_it_is_searched_and_paged(client, owner):
    for _ in range(3):
        client.log_in()
    seen, cursor = [], None
    while True:
        query = {"limit": 2, "action": "session.logged-in"} | ({"cursor": cursor} if cursor else {})
        answer = client.call("GET", AUDIT, caller=owner, params=query).json()["result"]
        seen += [one["id"] for one in answer["data"]]
        if (cursor := answer.get("next_cursor")) is None:
            break
    assert len(seen) == len(set(seen)) == 4
    assert seen == sorted(seen, reverse=True)
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert entries(client, owner, since=future) == []
    assert len(entries(client, owner, until=future)) == 5
    assert entries(client, owner, outcome="failure") == []
    assert len(entries(client, owner, person_id=owner.user_id)) == 5
    assert client.call("GET", AUDIT, caller=owner, params={"since": "2026-01-01T00:00:00"}).status_code == 422
    assert client.call("GET", AUDIT, caller=owner, params={"cursor": "x"}).status_code == 400


def test_the_admins_deeds_are_noted(client, owner):
    for deed in ("suspend", "suspend", "resume"):
        client.call("POST", f"/api/v1/admin/practices/{owner.practice_id}/{deed}", caller=ADMIN)
    found = [(one["action"], one["actor"]) for one in entries(client, owner) if one["actor"] == "admin"]
    assert found == [("practice.resumed", "admin"), ("practice.suspended", "admin")]


@pytest.mark.parametrize(
    "statement",
    ["UPDATE auth.audit SET outcome = 'success'", "DELETE FROM auth.audit", "TRUNCATE auth.audit"],
)
def test_nobody_changes_or_deletes_an_entry(client, owner, database_settings, central, statement):
    count = central.value("SELECT count(*) FROM auth.audit")
    connection = psycopg2.connect(
        host=database_settings["db_host"],
        port=database_settings["db_port"],
        dbname=database_settings["db_name"],
        user=database_settings["db_user"],
        password=database_settings["db_pass"],
    )
    with connection, connection.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute(statement)
    connection.close()
    assert central.value("SELECT count(*) FROM auth.audit") == count


def test_no_deed_is_done_without_its_entry(client, owner, central):
    sessions = central.value("SELECT count(*) FROM auth.sessions")
    central.rows("ALTER TABLE auth.audit ADD CONSTRAINT broken CHECK (action = 'nothing') NOT VALID")
    assert client.log_in().status_code == 500
    assert client.call("POST", "/api/v1/auth/logout", caller=owner).status_code == 500
    assert client.sign_up("other@example.com").status_code in {500, 503}
    assert central.value("SELECT count(*) FROM auth.sessions WHERE revoked_at IS NULL") == sessions
    assert central.value("SELECT count(*) FROM auth.practices WHERE status = 'active'") == 1


def test_no_entry_holds_a_secret(client, owner, central):
    client.call(
        "POST", "/api/v1/auth/password/change", {"current": PASSWORD, "password": "an-other-secret"}, caller=owner
    )
    client.log_in(password="a-wrong-secret")
    written = str(central.rows("SELECT * FROM auth.audit"))
    for secret in (PASSWORD, "an-other-secret", "a-wrong-secret"):
        assert secret not in written
