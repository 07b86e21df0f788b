"""Lists of practices: the admin sees all, a practice sees itself, nobody else anything."""

import itertools
from datetime import datetime

import pytest
from auth_support import ADMIN, ANYBODY, GATEWAY, Caller

from shared.ids import new_id

PRACTICES = "/api/v1/practices"
ADMIN_PRACTICES = "/api/v1/admin/practices"


@pytest.fixture
def signed_up(client):
    return [client.sign_up(f"clinic{n}@example.com", name=f"Clinic {n}").json()["result"] for n in range(3)]


def test_a_practice_sees_only_itself(client, signed_up):
    answer = client.call("GET", PRACTICES, caller=Caller(practice_id=signed_up[1]["id"], role="owner"))
    assert answer.json() == {
        "success": True,
        "status": 200,
        "message": "Practices fetched successfully!",
        "result": {"data": [signed_up[1]]},
    }


def test_the_admin_sees_all_that_signed_up_in_order(client, signed_up, central):
    for one, status in zip(signed_up, ("active", "suspended", "provisioning"), strict=True):
        central.rows("UPDATE auth.practices SET status = %s WHERE id = %s", status, one["id"])
    answer = client.call("GET", PRACTICES, caller=ADMIN)
    assert answer.json()["result"]["data"] == [
        signed_up[0] | {"status": "active"},
        signed_up[1] | {"status": "suspended"},
    ]


def test_the_operators_list_shows_every_state_and_the_database(client, signed_up, central, tenant):
    central.rows("UPDATE auth.practices SET status = 'suspended' WHERE id = %s", signed_up[1]["id"])
    data = client.call("GET", ADMIN_PRACTICES, caller=ADMIN).json()["result"]["data"]
    assert [one["status"] for one in data] == ["active", "suspended", "active"]
    assert data[0]["database_name"] == tenant.shards[signed_up[0]["id"]]
    assert data[0]["created_at"].endswith("Z")
    assert datetime.fromisoformat(data[0]["created_at"]).tzinfo


@pytest.mark.parametrize("path", [PRACTICES, ADMIN_PRACTICES])
def test_pages_follow_each_other_without_gap_or_repetition(client, signed_up, path):
    seen, next_page = [], f"{path}?limit=2"
    while next_page:
        answer = client.call("GET", next_page, caller=ADMIN)
        seen += [one["id"] for one in answer.json()["result"]["data"]]
        link = answer.headers.get("Link")
        assert (link is None) == ("next_cursor" not in answer.json()["result"])
        next_page = link and link.removeprefix("<").removesuffix('>; rel="next"')
    assert seen == [one["id"] for one in signed_up]


def test_nobody_else_sees_anything(client, signed_up):
    strangers = [ANYBODY, GATEWAY, Caller(role="owner"), Caller(role="stranger", practice_id=signed_up[0]["id"])]
    for caller, path in itertools.product(strangers, [PRACTICES, ADMIN_PRACTICES]):
        assert client.call("GET", path, caller=caller).status_code == 403


def test_an_owner_does_not_get_the_operators_list(client, signed_up):
    owner = Caller(practice_id=signed_up[1]["id"], role="owner")
    assert client.call("GET", ADMIN_PRACTICES, caller=owner).status_code == 403


def test_faulty_limits_are_422(client, subtests):
    for query in ("limit=0", "limit=1001", "limit=x", "limit=", f"cursor={'x' * 513}"):
        with subtests.test(query=query):
            assert client.call("GET", f"{PRACTICES}?{query}", caller=ADMIN).status_code == 422


def test_malformed_cursors_are_400(client, subtests):
    for cursor in ("\0", "x", "W10", "WyJ4Il0", "bnVsbA", "é", "", "W1tdXQ", "WzFd"):
        with subtests.test(cursor=cursor):
            answer = client.call("GET", PRACTICES, caller=ADMIN, params={"cursor": cursor})
            assert answer.status_code == 400, answer.text
            assert answer.json()["type"] == "/errors/malformed-cursor"


def test_a_practice_that_is_gone_sees_an_empty_list(client):
    answer = client.call("GET", PRACTICES, caller=Caller(practice_id=str(new_id()), role="owner"))
    assert answer.json()["result"] == {"data": []}
