"""People join by mail, work in roles, use a second factor; machines have keys; all of it through the gateway."""

import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pyotp
import pytest
from e2e_api import PATIENT, PATIENTS, REFRESH, Api, Practice, assert_error, assert_success, patient_path
from e2e_stack import Mailbox, eventually

INVITATIONS = "/api/v1/staff/invitations"
STAFF = "/api/v1/staff"
KEYS = "/api/v1/api-keys"
AUDIT = "/api/v1/audit"
TOTP = "/api/v1/auth/totp"
WITHIN_S = 5
PASSWORD = "a-persons-own-password"
ROLES = ("owner", "clinician", "receptionist", "auditor")
_TOKEN_LINE = re.compile(r"^[A-Za-z0-9_-]{43}$", re.MULTILINE)


@pytest.fixture(scope="module")
def people(api: Api, practice: Practice, mailbox: Mailbox) -> dict[str, dict[str, Any]]:
    """Somebody of each role, invited and joined by mail: tokens by role."""
    joined = {}
    for role in ROLES:
        email = f"{role}-{practice.id[-8:]}@example.com"
        sent = practice.call("POST", INVITATIONS, json={"email": email, "role": role})
        assert_success(sent, 201, "Invitation sent successfully!", "result")
        part = mailbox.wait_for(email, timeout_s=15).get_body(("plain",))
        assert part is not None
        text = part.get_content().replace("\r\n", "\n")
        [token] = _TOKEN_LINE.findall(text)
        assert f"/account/join#{token}" in text
        body = {"token": token, "name": role.title(), "password": PASSWORD}
        accepted = assert_success(
            api.post(f"{INVITATIONS}/accept", json=body), 200, "Invitation accepted successfully!", "result"
        )
        assert accepted["result"] == {"practice_id": practice.id, "email": email, "role": role}
        assert_error(api.post(f"{INVITATIONS}/accept", json=body), 400, "token-not-valid")
        joined[role] = api.log_in(email, PASSWORD).json() | {"email": email}
    return joined


def _statuses(api: Api, token: str, patient_id: str) -> dict[str, int]:
    calls: dict[str, Callable[[], httpx.Response]] = {
        "list": lambda: api.get(PATIENTS, token=token),
        "read": lambda: api.get(patient_path(patient_id), token=token),
        "add": lambda: api.post(PATIENTS, token=token, json=PATIENT),
        "change": lambda: api.call("PATCH", patient_path(patient_id), token=token, json={"age": 31}),
        "delete": lambda: api.call("DELETE", patient_path(patient_id), token=token),
        "restore": lambda: api.post(patient_path(patient_id, "/restore"), token=token),
        "staff": lambda: api.get(STAFF, token=token),
        "keys": lambda: api.get(KEYS, token=token),
        "policy": lambda: api.get("/api/v1/practices/policy", token=token),
        "audit": lambda: api.get(AUDIT, token=token),
        "practice": lambda: api.get("/api/v1/practices", token=token),
        "sessions": lambda: api.get("/api/v1/auth/sessions", token=token),
        "admin": lambda: api.get("/api/v1/admin/practices", token=token),
    }
    return {name: call().status_code for name, call in calls.items()}


_READING = {"list", "read"}
_OWN = {"practice", "sessions"}
ALLOWED = {
    "owner": {*_READING, *_OWN, "add", "change", "delete", "restore", "staff", "keys", "policy", "audit"},
    "clinician": {*_READING, *_OWN, "add", "change", "delete", "restore"},
    "receptionist": {*_READING, *_OWN, "add", "change"},
    "auditor": {*_READING, *_OWN, "audit"},
}


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_what_it_is_for_and_nothing_else(
    api: Api, practice: Practice, people: dict[str, dict[str, Any]], role: str
) -> None:
    patient = practice.new_patient()
    statuses = _statuses(api, people[role]["token"], patient["id"])
    assert statuses.pop("admin") == 401
    assert {name for name, status in statuses.items() if status < 300} == ALLOWED[role]
    assert {status for name, status in statuses.items() if name not in ALLOWED[role]} <= {403}


def test_another_role_counts_within_seconds(
    api: Api, practice: Practice, people: dict[str, dict[str, Any]], new_practice: Callable[..., Practice]
) -> None:
    somebody = people["clinician"]
    staff = practice.get(STAFF).json()["result"]["data"]
    person_id = next(one["id"] for one in staff if one["email"] == somebody["email"])
    assert_error(new_practice().call("PATCH", f"{STAFF}/{person_id}", json={"role": "auditor"}), 404, "unknown-staff")
    changed = practice.call("PATCH", f"{STAFF}/{person_id}", json={"role": "auditor"})
    assert_success(changed, 200, "Role changed successfully!", "result")
    eventually(
        lambda: api.get(PATIENTS, token=somebody["token"]).status_code == 401,
        "the old token is refused",
        timeout_s=WITHIN_S,
    )

    def refreshed_token() -> str | None:
        answer = api.post(REFRESH, json={"refresh_token": somebody["refresh_token"]})
        somebody.update(answer.json())
        return somebody["token"] if api.get(PATIENTS, token=somebody["token"]).status_code == 200 else None

    token = eventually(refreshed_token, "a refreshed token is taken", timeout_s=WITHIN_S)
    assert_error(api.post(PATIENTS, token=token, json=PATIENT), 403, "forbidden")
    assert practice.call("DELETE", f"{STAFF}/{person_id}").status_code == 200
    eventually(lambda: api.get(PATIENTS, token=token).status_code == 401, "removed", timeout_s=WITHIN_S)
    assert_error(api.log_in(somebody["email"], PASSWORD), 401, "wrong-credentials")


def test_an_api_key_does_what_it_may_until_it_is_revoked(
    api: Api, practice: Practice, other_practice: Practice
) -> None:
    made = practice.call("POST", KEYS, json={"name": "Lab", "permissions": ["patients:read"], "expires_at": None})
    key = assert_success(made, 201, "API key created successfully!", "result")["result"]
    patient = practice.new_patient()
    assert api.get(patient_path(patient["id"]), token=key["key"]).status_code == 200
    foreign = other_practice.new_patient()
    assert api.get(patient_path(foreign["id"]), token=key["key"]).status_code == 404
    assert_error(api.post(PATIENTS, token=key["key"], json=PATIENT), 403, "forbidden")
    for path in (STAFF, KEYS, AUDIT, "/api/v1/practices", "/api/v1/auth/sessions"):
        assert_error(api.get(path, token=key["key"]), 403, "forbidden")
    assert_error(
        api.get(PATIENTS, token=key["key"][:-1] + ("0" if key["key"][-1] != "0" else "1")), 401, "invalid-token"
    )
    [shown] = [one for one in practice.get(KEYS).json()["result"]["data"] if one["id"] == key["id"]]
    assert "key" not in shown
    assert shown["last_used_at"]
    assert_error(other_practice.call("DELETE", f"{KEYS}/{key['id']}"), 404, "unknown-key")
    assert practice.call("DELETE", f"{KEYS}/{key['id']}").status_code == 200
    eventually(lambda: api.get(PATIENTS, token=key["key"]).status_code == 401, "revoked", timeout_s=WITHIN_S)


def test_a_second_factor_is_set_up_asked_for_and_demanded(api: Api, new_practice: Callable[..., Practice]) -> None:
    practice = new_practice()
    secret = practice.call("POST", TOTP).json()["result"]["secret"]

    def code(step: int) -> str:
        return pyotp.TOTP(secret).at(time.time() + 30 * step)

    confirmed = practice.call("POST", f"{TOTP}/confirm", json={"code": code(-1)})
    codes = assert_success(confirmed, 200, "Second factor enabled successfully!", "result")["result"]["recovery_codes"]
    assert_error(api.log_in(practice.email, practice.password), 401, "second-factor-required")
    body = {"email": practice.email, "password": practice.password}
    assert api.post("/api/v1/practices/login", json=body | {"code": code(0)}).status_code == 200
    assert api.post("/api/v1/practices/login", json=body | {"code": codes[0]}).status_code == 200
    assert_error(api.post("/api/v1/practices/login", json=body | {"code": codes[0]}), 401, "wrong-code")
    policy = practice.call("PUT", "/api/v1/practices/policy", json={"second_factor_roles": ["owner"]})
    assert_success(policy, 200, "Policy changed successfully!", "result")
    removed = practice.call("DELETE", TOTP, json={"code": codes[1]})
    assert_success(removed, 200, "Second factor removed successfully!")
    limited = api.log_in(practice.email, practice.password).json()["token"]
    assert_error(api.get(PATIENTS, token=limited), 403, "second-factor-enrolment-required")
    assert_error(api.post(PATIENTS, token=limited, json=PATIENT), 403, "second-factor-enrolment-required")
    assert api.get(TOTP, token=limited).status_code == 200


def test_a_person_of_two_practices_switches(
    api: Api, practice: Practice, new_practice: Callable[..., Practice], mailbox: Mailbox
) -> None:
    visitor = new_practice()
    assert practice.call("POST", INVITATIONS, json={"email": visitor.email, "role": "clinician"}).status_code == 201

    def invitation() -> str | None:
        for one in mailbox.sent_to(visitor.email):
            if "invites" in str(one["Subject"]):
                part = one.get_body(("plain",))
                assert part is not None
                return str(_TOKEN_LINE.findall(part.get_content().replace("\r\n", "\n"))[0])
        return None

    token = eventually(invitation, "an invitation", timeout_s=15)
    body = {"token": token, "name": "x", "password": visitor.password}
    assert api.post(f"{INVITATIONS}/accept", json=body).status_code == 200
    switched = visitor.call("POST", "/api/v1/auth/switch", json={"practice_id": practice.id})
    there = assert_success(switched, 200, "Switched successfully!", "token", "refresh_token", "expires_in")["token"]
    patient = practice.new_patient()
    assert api.get(patient_path(patient["id"]), token=there).status_code == 200
    assert visitor.get(patient_path(patient["id"])).status_code == 404, "the old session is where it was"
    unknown = visitor.call("POST", "/api/v1/auth/switch", json={"practice_id": new_practice().id})
    assert_error(unknown, 404, "unknown-practice")


def test_the_admins_token_reads_what_basic_reads_and_no_patient(
    api: Api, practice: Practice, admin: tuple[str, str]
) -> None:
    entered = assert_success(
        api.post("/api/v1/admin/login", auth=admin), 200, "Login successful!", "token", "expires_in"
    )
    token = entered["token"]
    assert api.get("/api/v1/practices", token=token).status_code == 200
    assert_error(api.get(PATIENTS, token=token), 401, "invalid-token")
    entries = api.get(AUDIT, token=token, params={"practice_id": practice.id}).json()["result"]["data"]
    assert {"session.logged-in", "practice.signed-up"} <= {one["action"] for one in entries}
    assert api.post("/api/v1/admin/logout", token=token).status_code == 200
    eventually(lambda: api.get("/api/v1/practices", token=token).status_code == 401, "ended", timeout_s=WITHIN_S)
