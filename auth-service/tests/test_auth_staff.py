"""People join a practice, change their role, leave it, and work in several."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from auth_support import ANYBODY, PASSWORD, caller_of

from shared.events import STAFF_INVITED
from shared.ids import new_id

INVITATIONS = "/api/v1/staff/invitations"
STAFF = "/api/v1/staff"
NEW = {"name": "Ann Lee", "password": "a-new-persons-password"}


@pytest.fixture
def owner(client):
    client.sign_up()
    return caller_of(client.log_in())


@pytest.fixture
def stranger(client):
    """The owner of another practice."""
    client.sign_up("stranger@example.com")
    return caller_of(client.log_in("stranger@example.com"))


@pytest.fixture
def invite(client, central, owner):
    def send(email="ann@example.com", role="clinician", *, by=owner):
        answer = client.call("POST", INVITATIONS, {"email": email, "role": role}, caller=by)
        assert answer.status_code == 201, answer.text
        return answer.json()["result"]["id"], central.mailed(STAFF_INVITED)[-1]["token"]

    return send


@pytest.fixture
def join(client, invite):
    def do(email="ann@example.com", role="clinician", **changed):
        _, token = invite(email, role)
        answer = client.call("POST", f"{INVITATIONS}/accept", {"token": token} | NEW | changed)
        assert answer.status_code == 200, answer.text
        return caller_of(client.log_in(email, NEW["password"]))

    return do


def refusal(answer):
    return answer.status_code, answer.json()["type"].rpartition("/")[2]


def test_an_invited_person_joins_logs_in_and_has_the_role(client, central, owner, invite):
    invitation_id, token = invite()
    (mail,) = central.mailed(STAFF_INVITED)
    assert mail == {
        "email": "ann@example.com",
        "practice": "Sunrise Clinic",
        "inviter": "Sunrise Clinic",
        "role": "clinician",
        "token": token,
    }
    answer = client.call("POST", f"{INVITATIONS}/accept", {"token": token} | NEW)
    assert answer.json()["result"] == {
        "practice_id": owner.practice_id,
        "email": "ann@example.com",
        "role": "clinician",
    }
    ann = caller_of(client.log_in("ann@example.com", NEW["password"]))
    assert (ann.role, ann.practice_id) == ("clinician", owner.practice_id)
    assert central.value("SELECT email_verified_at IS NOT NULL FROM auth.people WHERE email_key = 'ann@example.com'")
    (shown,) = [one for one in listed(client, owner) if one["email"] == "ann@example.com"]
    assert (shown["id"], shown["name"], shown["role"]) == (ann.user_id, "Ann Lee", "clinician")
    assert client.call("GET", INVITATIONS, caller=owner).json()["result"] == {"data": []}
    assert ("staff.joined", "success") in central.audited()
    assert token not in str(central.rows("SELECT * FROM auth.audit"))
    assert refusal(client.call("DELETE", f"{INVITATIONS}/{invitation_id}", caller=owner)) == (404, "unknown-invitation")


def listed(client, caller):
    return client.call("GET", STAFF, caller=caller).json()["result"]["data"]


def test_a_token_is_good_for_one_use_and_only_in_time(client, central, owner, invite):
    _, used = invite("one@example.com")
    assert client.call("POST", f"{INVITATIONS}/accept", {"token": used} | NEW).status_code == 200
    revoked_id, revoked = invite("two@example.com")
    assert client.call("DELETE", f"{INVITATIONS}/{revoked_id}", caller=owner).status_code == 200
    _, expired = invite("three@example.com")
    central.rows("UPDATE auth.invitations SET expires_at = now() WHERE email_key = 'three@example.com'")
    resent_id, resent = invite("four@example.com")
    assert client.call("POST", f"{INVITATIONS}/{resent_id}/resend", caller=owner).status_code == 200
    for token in (used, revoked, expired, resent, "nonsense", "x" * 200):
        answer = client.call("POST", f"{INVITATIONS}/accept", {"token": token} | NEW)
        assert refusal(answer) == (400, "token-not-valid"), token
    newest = central.mailed(STAFF_INVITED)[-1]["token"]
    assert client.call("POST", f"{INVITATIONS}/accept", {"token": newest} | NEW).status_code == 200


def test_of_parallel_acceptances_one_succeeds(client, central, invite):
    _, token = invite()
    with ThreadPoolExecutor(4) as threads:
        bodies = [{"token": token, "name": f"Ann {n}", "password": NEW["password"]} for n in range(4)]
        answers = list(threads.map(lambda body: client.call("POST", f"{INVITATIONS}/accept", body), bodies))
    assert sorted(answer.status_code for answer in answers)[:1] == [200]
    assert [answer.status_code for answer in answers].count(200) == 1
    assert central.value("SELECT count(*) FROM auth.people WHERE email_key = 'ann@example.com'") == 1


def test_a_known_person_joins_with_the_password_that_they_have(client, central, owner, stranger, invite):
    _, token = invite("stranger@example.com", "auditor")
    wrong = client.call("POST", f"{INVITATIONS}/accept", {"token": token} | NEW)
    assert refusal(wrong) == (401, "wrong-credentials")
    right = {"token": token, "name": "Ignored", "password": PASSWORD}
    assert client.call("POST", f"{INVITATIONS}/accept", right).status_code == 200
    names = {one["email"]: one["name"] for one in listed(client, owner)}
    assert names["stranger@example.com"] == "Sunrise Clinic"
    assert ("staff.joined", "failure") in central.audited()


def test_guessing_a_known_persons_password_by_an_invitation_is_throttled(client, stranger, invite):
    _, token = invite("stranger@example.com")
    guess = {"token": token, "name": "x", "password": "not-the-password"}
    statuses = [client.call("POST", f"{INVITATIONS}/accept", guess).status_code for _ in range(6)]
    assert statuses == [401] * 5 + [429]
    assert client.log_in("stranger@example.com").status_code == 429


def test_a_new_person_needs_a_good_password(client, invite):
    _, token = invite()
    for password in ("short", "password123", "ANN@example.com", "ann margaret"):
        body = {"token": token, "name": "Ann Margaret", "password": password}
        answer = client.call("POST", f"{INVITATIONS}/accept", body)
        assert refusal(answer) == (422, "validation")
        assert answer.json()["errors"][0]["field"] == "password"
        assert password not in answer.text


def test_who_works_here_or_is_invited_is_not_invited_twice(client, central, owner, invite, join):
    join()
    again = client.call("POST", INVITATIONS, {"email": "ANN@example.com", "role": "owner"}, caller=owner)
    assert refusal(again) == (409, "already-member")
    invite("two@example.com")
    again = client.call("POST", INVITATIONS, {"email": "two@example.com", "role": "owner"}, caller=owner)
    assert refusal(again) == (409, "invitation-open")
    central.rows("UPDATE auth.invitations SET expires_at = now() WHERE email_key = 'two@example.com'")
    invite("two@example.com", "owner")
    (shown,) = client.call("GET", INVITATIONS, caller=owner).json()["result"]["data"]
    assert (shown["role"], shown["is_expired"]) == ("owner", False)


def test_a_practice_cannot_fill_mailboxes(client, central, owner, invite):
    for n in range(3):
        invite(f"n{n}@example.com")
    central.rows(
        "INSERT INTO auth.invitations"
        " (id, practice_id, email, email_key, role, digest, invited_by, expires_at, revoked_at)"
        " SELECT gen_random_uuid(), practice_id, 'x', 'x' || n, role, sha256(n::text::bytea), invited_by, now(), now()"
        " FROM auth.invitations, generate_series(1, 97) n WHERE email_key = 'n0@example.com'"
    )
    answer = client.call("POST", INVITATIONS, {"email": "one-more@example.com", "role": "owner"}, caller=owner)
    assert refusal(answer) == (429, "too-many-mails")
    assert answer.headers["Retry-After"]


@pytest.mark.parametrize("role", ["clinician", "receptionist", "auditor"])
def test_only_owners_manage_staff(client, owner, join, role):
    caller = join(role=role)
    calls = [
        ("GET", STAFF, None),
        ("GET", INVITATIONS, None),
        ("POST", INVITATIONS, {"email": "x@example.com", "role": "owner"}),
        ("POST", f"{INVITATIONS}/{new_id()}/resend", None),
        ("DELETE", f"{INVITATIONS}/{new_id()}", None),
        ("PATCH", f"{STAFF}/{caller.user_id}", {"role": "owner"}),
        ("DELETE", f"{STAFF}/{owner.user_id}", None),
    ]
    for method, path, body in calls:
        assert refusal(client.call(method, path, body, caller=caller)) == (403, "forbidden"), (method, path)
        assert client.call(method, path, body, caller=ANYBODY).status_code == 403


def test_another_practices_people_and_invitations_are_unknown(client, owner, stranger, invite, join):
    invitation_id, _ = invite("two@example.com")
    ann = join()
    for method, path, body, error in (
        ("PATCH", f"{STAFF}/{{}}", {"role": "auditor"}, "unknown-staff"),
        ("DELETE", f"{STAFF}/{{}}", None, "unknown-staff"),
        ("DELETE", f"{INVITATIONS}/{{}}", None, "unknown-invitation"),
        ("POST", f"{INVITATIONS}/{{}}/resend", None, "unknown-invitation"),
    ):
        foreign = invitation_id if "invitations" in path else ann.user_id
        answers = [client.call(method, path.format(one), body, caller=stranger) for one in (foreign, new_id())]
        assert [refusal(answer) for answer in answers] == [(404, error)] * 2
        assert answers[0].json() | {"instance": ""} == answers[1].json() | {"instance": ""}
    assert {one["email"] for one in listed(client, owner)} == {"clinic@example.com", "ann@example.com"}


def test_another_role_makes_the_tokens_worthless_and_comes_with_the_next(client, central, owner, join):
    ann = join()
    tokens = client.log_in("ann@example.com", NEW["password"]).json()
    changed = client.call("PATCH", f"{STAFF}/{ann.user_id}", {"role": "receptionist"}, caller=owner)
    assert changed.json()["result"]["role"] == "receptionist"
    told = central.rows("SELECT kind, count(*) FROM auth.changes GROUP BY kind")
    assert told == [("session-changed", 2)]
    refreshed = client.call("POST", "/api/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    assert caller_of(refreshed).role == "receptionist"
    again = client.call("PATCH", f"{STAFF}/{ann.user_id}", {"role": "receptionist"}, caller=owner)
    assert again.status_code == 200
    assert central.value("SELECT count(*) FROM auth.changes") == 2, "nothing changed"


def test_who_is_removed_is_out_and_the_email_is_free(client, central, owner, join):
    ann = join()
    tokens = client.log_in("ann@example.com", NEW["password"]).json()
    assert client.call("DELETE", f"{STAFF}/{ann.user_id}", caller=owner).status_code == 200
    assert set(central.rows("SELECT kind FROM auth.changes")) == {("session-revoked",)}
    refresh = client.call("POST", "/api/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    assert refusal(refresh) == (401, "invalid-refresh-token")
    assert refusal(client.log_in("ann@example.com", NEW["password"])) == (401, "wrong-credentials")
    assert client.sign_up("ann@example.com").status_code == 201
    assert ("staff.removed", "success") in central.audited(), "the audit outlives the person"


def test_who_works_elsewhere_stays_there(client, central, owner, stranger, invite):
    _, token = invite("stranger@example.com")
    client.call("POST", f"{INVITATIONS}/accept", {"token": token, "name": "x", "password": PASSWORD})
    assert client.call("DELETE", f"{STAFF}/{stranger.user_id}", caller=owner).status_code == 200
    assert caller_of(client.log_in("stranger@example.com")).practice_id == stranger.practice_id
    assert central.rows("SELECT * FROM auth.changes") == [], "the sessions there go on"


def test_the_last_owner_stays(client, owner, join):
    for method, body in (("PATCH", {"role": "auditor"}), ("DELETE", None)):
        answer = client.call(method, f"{STAFF}/{owner.user_id}", body, caller=owner)
        assert refusal(answer) == (409, "last-owner")
    second = join(role="owner")
    targets = [(owner, second), (second, owner)]
    with ThreadPoolExecutor(2) as threads:
        answers = list(
            threads.map(
                lambda pair: client.call("PATCH", f"{STAFF}/{pair[1].user_id}", {"role": "auditor"}, caller=pair[0]),
                targets,
            )
        )
    assert sorted(answer.status_code for answer in answers) == [200, 409]


def test_a_person_switches_between_practices(client, central, owner, stranger, invite):
    _, token = invite("stranger@example.com", "auditor")
    client.call("POST", f"{INVITATIONS}/accept", {"token": token, "name": "x", "password": PASSWORD})
    mine = client.call("GET", "/api/v1/auth/practices", caller=stranger).json()["result"]["data"]
    assert {(one["id"], one["role"], one["current"]) for one in mine} == {
        (stranger.practice_id, "owner", True),
        (owner.practice_id, "auditor", False),
    }
    answer = client.call("POST", "/api/v1/auth/switch", {"practice_id": owner.practice_id}, caller=stranger)
    assert answer.status_code == 200
    there = caller_of(answer)
    assert (there.practice_id, there.role, there.user_id) == (owner.practice_id, "auditor", stranger.user_id)
    assert there.session_id != stranger.session_id
    assert caller_of(client.log_in("stranger@example.com")).practice_id == owner.practice_id, "the one used last"
    assert ("session.switched", "success") in central.audited()


def test_nobody_switches_to_where_they_do_not_work(client, central, owner, stranger):
    answers = [
        client.call("POST", "/api/v1/auth/switch", {"practice_id": str(one)}, caller=stranger)
        for one in (owner.practice_id, new_id())
    ]
    assert [refusal(answer) for answer in answers] == [(404, "unknown-practice")] * 2
    central.rows("UPDATE auth.practices SET status = 'suspended' WHERE id = %s", stranger.practice_id)
    answer = client.call("POST", "/api/v1/auth/switch", {"practice_id": stranger.practice_id}, caller=stranger)
    assert refusal(answer) == (403, "practice-suspended")
    client.call("POST", "/api/v1/auth/logout", caller=stranger)
    answer = client.call("POST", "/api/v1/auth/switch", {"practice_id": stranger.practice_id}, caller=stranger)
    assert refusal(answer) == (401, "unauthenticated")


def test_an_invitation_to_a_suspended_practice_waits(client, central, owner, invite):
    _, token = invite()
    central.rows("UPDATE auth.practices SET status = 'suspended' WHERE id = %s", owner.practice_id)
    answer = client.call("POST", f"{INVITATIONS}/accept", {"token": token} | NEW)
    assert refusal(answer) == (403, "practice-suspended")
    central.rows("UPDATE auth.practices SET status = 'active'")
    assert client.call("POST", f"{INVITATIONS}/accept", {"token": token} | NEW).status_code == 200


def test_lists_come_in_pages(client, owner, join, invite):
    join()
    for n in range(3):
        invite(f"n{n}@example.com")
    for path, count in ((STAFF, 2), (INVITATIONS, 3)):
        seen, cursor = [], None
        while True:
            query = {"limit": 1} | ({"cursor": cursor} if cursor else {})
            result = client.call("GET", path, caller=owner, params=query).json()["result"]
            seen += [one["id"] for one in result["data"]]
            cursor = result.get("next_cursor")
            if cursor is None:
                break
        assert len(set(seen)) == len(seen) == count
        assert client.call("GET", path, caller=owner, params={"cursor": "x"}).status_code == 400
