"""A practice is closed: a time to undo it, then everything goes that names somebody, and a signed record stays."""

import jwt
import pytest
from auth_support import ADMIN, GATEWAY, caller_of, member, wait_for
from jwt.algorithms import OKPAlgorithm

from shared.ids import new_id

OVER = "UPDATE auth.practices SET closes_at = now() - interval '1 s' WHERE status = 'closing'"


@pytest.fixture
def practice(client):
    return client.sign_up().json()["result"]


def order(client, deed, practice_id, *, caller=ADMIN, method="POST", **parts):
    return client.call(method, f"/api/v1/admin/practices/{practice_id}/{deed}", caller=caller, **parts)


def kinds(client, after):
    news = client.call("GET", "/internal/changes", caller=GATEWAY, params={"after": after}).json()
    return [change["kind"] for change in news["changes"]]


def closed(client, central, practice_id):
    """Closes it, lets the time pass, and waits for its end."""
    order(client, "close", practice_id)
    central.rows(OVER)
    wait_for(lambda: central.value("SELECT status FROM auth.practices WHERE id = %s", practice_id) == "closed")


@pytest.mark.parametrize("before", ["active", "suspended"])
def test_until_the_time_is_over_closing_can_be_undone(client, central, practice, before):
    if before == "suspended":
        order(client, "suspend", practice["id"])
    entered = client.log_in() if before == "active" else None
    last = client.call("GET", "/internal/changes", caller=GATEWAY).json()["last"]
    first = order(client, "close", practice["id"])
    assert first.status_code == 200, first.text
    result = first.json()["result"]
    assert (result["practice"], result["status"]) == (practice["id"], "closing")
    left_s = central.value("SELECT extract(epoch from closes_at - now())::float FROM auth.practices")
    assert 30 * 86_400 - 600 < left_s <= 30 * 86_400
    assert order(client, "close", practice["id"]).json()["result"] == result  # the time does not begin anew
    assert kinds(client, last) == ["practice-suspended"]
    assert client.log_in().json()["type"] == "/errors/practice-suspended"
    undone = order(client, "undo-close", practice["id"])
    assert undone.json()["result"] == {"practice": practice["id"], "status": before, "until": None}
    assert kinds(client, last)[1:] == (["practice-resumed"] if before == "active" else [])
    if entered:
        assert client.log_in().status_code == 200
        assert client.call("GET", "/api/v1/auth/sessions", caller=caller_of(entered)).status_code == 200
    again = order(client, "undo-close", practice["id"])
    assert (again.status_code, again.json()["type"]) == (409, "/errors/practice-not-closing")


def test_a_gateway_that_starts_later_knows_that_it_is_closing(client, practice):
    order(client, "close", practice["id"])
    news = client.call("GET", "/internal/changes", caller=GATEWAY).json()
    assert [(one["kind"], one["practice_id"]) for one in news["changes"]] == [("practice-suspended", practice["id"])]


def test_when_the_time_is_over_everything_that_names_somebody_goes(client, central, tenant, practice):
    entered = client.log_in()
    owner = caller_of(entered)
    client.call("POST", "/api/v1/staff/invitations", caller=owner, json={"email": "x@example.com", "role": "auditor"})
    client.call(
        "POST",
        "/api/v1/api-keys",
        caller=owner,
        json={"name": "k", "permissions": ["patients:read"], "expires_at": None},
    )
    last = client.call("GET", "/internal/changes", caller=GATEWAY).json()["last"]
    closed(client, central, practice["id"])
    assert tenant.erased == [practice["id"]]
    for table in (
        "people",
        "memberships",
        "sessions",
        "invitations",
        "api_keys",
        "outbox",
        "mail_tokens",
        "known_devices",
    ):
        assert central.rows(f"SELECT * FROM auth.{table}") == [], table
    [(name, email, password)] = central.rows("SELECT name, email, password FROM auth.practices")
    assert (name, email, password) == ("closed", f"{practice['id']}@closed.invalid", "")
    assert kinds(client, last) == ["practice-suspended", "session-revoked"]
    assert client.log_in().status_code == 401
    assert client.sign_up().status_code == 201  # the e-mail is free again
    actions = [action for action, _ in central.audited()]
    assert {"practice.closing", "practice.closed"} <= set(actions)
    for deed in ("close", "undo-close", "suspend"):
        assert order(client, deed, practice["id"]).status_code == 409


def test_who_works_elsewhere_too_keeps_the_account(client, central, practice):
    """A person of two practices, one of which is closed."""
    other = client.sign_up(email="other@example.com").json()["result"]
    person = central.value("SELECT id FROM auth.people WHERE email_key = 'clinic@example.com'")
    central.rows(
        "INSERT INTO auth.memberships (person_id, practice_id, role) VALUES (%s, %s, 'clinician')",
        person,
        other["id"],
    )
    closed(client, central, practice["id"])
    assert central.value("SELECT count(*) FROM auth.people WHERE id = %s", person) == 1
    assert client.log_in().status_code == 200


def test_the_record_is_signed_and_passes_for_no_token(client, central, practice):
    assert order(client, "deletion-record", practice["id"], method="GET").status_code == 404
    database = central.value("SELECT database_name FROM auth.practices")
    closed(client, central, practice["id"])
    record = order(client, "deletion-record", practice["id"], method="GET").json()["result"]["record"]
    [key] = client.http.get("/.well-known/jwks.json").json()["keys"]
    header = jwt.get_unverified_header(record)
    assert (header["typ"], header["kid"]) == ("deletion-record+jwt", key["kid"])
    facts = jwt.decode(record, OKPAlgorithm.from_jwk(key), algorithms=["EdDSA"])
    erased_at = facts.pop("erased_at")
    assert erased_at > 1_700_000_000
    assert facts == {
        "iss": "gowebbo",
        "practice": practice["id"],
        "database": database,
        "backup_files": 2,
        "backup_key": "destroyed",
        "people": 1,
    }
    assert "clinic@example.com" not in str(facts)


@pytest.mark.parametrize("mode", ["error", "drop", "nonsense"])
def test_while_the_data_cannot_be_destroyed_nothing_else_is(client, central, tenant, practice, mode):
    order(client, "close", practice["id"])
    tenant.mode = mode
    central.rows(OVER)
    refused = order(client, "undo-close", practice["id"])
    assert (refused.status_code, refused.json()["detail"]) == (409, "The time to undo it is over.")
    assert central.value("SELECT count(*) FROM auth.people") == 1
    assert central.value("SELECT status FROM auth.practices") == "closing"
    tenant.mode = "ok"
    wait_for(lambda: central.value("SELECT status FROM auth.practices") == "closed")
    assert central.value("SELECT count(*) FROM auth.deletion_records") == 1


def test_an_export_hands_over_the_practice_and_its_audit(client, central, tenant, practice):
    done = order(client, "export", practice["id"], json={"to": "/exports"})
    assert done.status_code == 201, done.text
    assert done.json()["result"] == {"practice": practice["id"], "path": f"/exports/{practice['id']}.zip", "rows": 7}
    [sent] = tenant.exports
    assert (sent["practice"]["id"], sent["practice"]["email"]) == (practice["id"], practice["email"])
    assert [entry["action"] for entry in sent["audit"]] == ["practice.signed-up"]
    assert "password" not in str(sent)
    assert central.audited()[-1][0] == "practice.exported"
    refused = order(client, "export", practice["id"], json={"to": "/forbidden"})
    assert (refused.status_code, refused.json()["detail"]) == (
        409,
        "/forbidden can't be written to: Permission denied.",
    )
    tenant.mode = "error"
    assert order(client, "export", practice["id"], json={"to": "/exports"}).status_code == 503


def test_nobody_but_the_admin_closes_or_exports(client, practice):
    owner = member(str(new_id()), practice_id=practice["id"])
    for deed in ("close", "undo-close", "export"):
        assert order(client, deed, practice["id"], caller=owner, json={"to": "/x"}).status_code == 403
    assert order(client, "close", new_id()).status_code == 404
    assert order(client, "undo-close", new_id()).status_code == 404
    assert order(client, "export", new_id(), json={"to": "/x"}).status_code == 404
