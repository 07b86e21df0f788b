"""The admin suspends and resumes a practice; the feed tells every gateway of it, however late it comes."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
from auth_support import ADMIN, ANYBODY, GATEWAY, Caller, wait_for

from auth_service import revocations
from auth_service.storage import changes
from shared.changes import SESSION_REVOKED
from shared.ids import new_id

DEEDS = ("suspend", "resume")


@pytest.fixture
def practice(client):
    return client.sign_up().json()["result"]


def order(client, deed: str, practice_id: str, *, caller: Caller = ADMIN):
    return client.call("POST", f"/api/v1/admin/practices/{practice_id}/{deed}", caller=caller)


def poll(client, **after) -> dict:
    answer = client.call("GET", "/internal/changes", caller=GATEWAY, params=after)
    assert answer.status_code == 200
    news = answer.json()
    del news["signing_key"]
    return news


def told(news: dict) -> list[tuple[str, str]]:
    return [(change["kind"], change["practice_id"]) for change in news["changes"]]


def suspended_of(client, **after) -> set[str]:
    """Who is suspended for a gateway that reads the feed, in as many parts as it takes."""
    found: set[str] = set()
    while True:
        news = poll(client, **after)
        for change in news["changes"]:
            if change["kind"] == "practice-suspended":
                found.add(change["practice_id"])
            if change["kind"] == "practice-resumed":
                found.discard(change["practice_id"])
        if len(news["changes"]) < revocations.MAX_CHANGES:
            return found
        after = {"after": news["last"]}


def test_suspending_and_resuming_change_the_status_and_tell_gateways(client, practice, central):
    for deed, message, status, kind in (
        ("suspend", "Practice suspended successfully!", "suspended", "practice-suspended"),
        ("resume", "Practice resumed successfully!", "active", "practice-resumed"),
    ):
        before = poll(client)["last"]
        answer = order(client, deed, practice["id"])
        assert answer.status_code == 200
        assert answer.json() == {
            "success": True,
            "status": 200,
            "message": message,
            "result": practice | {"status": status},
        }
        assert central.value("SELECT status FROM auth.practices") == status
        assert told(poll(client, after=before)) == [(kind, practice["id"])]


@pytest.mark.parametrize("deed", DEEDS)
def test_doing_it_again_succeeds_and_changes_nothing(client, practice, central, deed):
    order(client, deed, practice["id"])
    before = central.rows("SELECT * FROM auth.practices"), poll(client)
    again = order(client, deed, practice["id"])
    assert (again.status_code, again.json()["result"]["status"]) == (
        200,
        {"suspend": "suspended", "resume": "active"}[deed],
    )
    assert (central.rows("SELECT * FROM auth.practices"), poll(client)) == before


def test_many_at_once_tell_of_it_once(client, practice):
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: order(client, "suspend", practice["id"]), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert told(poll(client, after=0)) == [("practice-suspended", practice["id"])]


def test_the_last_word_of_the_feed_is_the_status_whatever_happens_at_once(client, practice, central):
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: order(client, DEEDS[n % 2], practice["id"]), range(40)))
    assert {answer.status_code for answer in answers} == {200}
    kinds = [kind for kind, _ in told(poll(client, after=0))]
    assert all(one != next_one for one, next_one in itertools.pairwise(kinds)), "they alternate"
    is_suspended = central.value("SELECT status FROM auth.practices") == "suspended"
    assert (kinds[-1] == "practice-suspended") == is_suspended


def test_no_session_ends_and_new_ones_wait_for_the_end(client, practice, central):
    tokens = client.log_in().json()
    order(client, "suspend", practice["id"])

    def refreshed() -> int:
        return client.call("POST", "/api/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]}).status_code

    assert client.log_in(password="wrong").status_code == 401
    refused = client.log_in()
    assert (refused.status_code, refused.json()["type"]) == (403, "/errors/practice-suspended")
    assert refreshed() == 403
    assert central.rows("SELECT revoked_at FROM auth.sessions") == [(None,)]
    order(client, "resume", practice["id"])
    assert refreshed() == 200
    assert client.log_in().status_code == 200


def test_the_neighbour_stays_active(client, practice):
    neighbour = client.sign_up("neighbour@example.com").json()["result"]
    order(client, "suspend", practice["id"])
    assert client.log_in("neighbour@example.com").status_code == 200
    listed = client.call("GET", "/api/v1/admin/practices", caller=ADMIN).json()["result"]["data"]
    assert {one["id"]: one["status"] for one in listed} == {practice["id"]: "suspended", neighbour["id"]: "active"}


@pytest.mark.parametrize("deed", DEEDS)
def test_an_unknown_practice_is_404_and_no_id_is_422(client, practice, deed):
    answer = order(client, deed, str(new_id()))
    assert (answer.status_code, answer.json()["type"]) == (404, "/errors/unknown-practice")
    assert order(client, deed, "nobody").status_code == 422
    assert poll(client) == {"changes": [], "last": 0}


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("status", ["closing", "closed"])
def test_what_is_neither_active_nor_suspended_is_409_and_stays(client, practice, central, deed, status):
    central.rows("UPDATE auth.practices SET status = %s", status)
    answer = order(client, deed, practice["id"])
    assert (answer.status_code, answer.json()["type"]) == (409, "/errors/practice-not-active")
    assert answer.json()["detail"] == f"This practice is {status}."
    assert central.value("SELECT status FROM auth.practices") == status
    assert poll(client) == {"changes": [], "last": 0}


def test_a_sign_up_under_way_is_409_and_ends_well(client, central, tenant):
    tenant.mode = "hang"
    with ThreadPoolExecutor(1) as threads:
        signing_up = threads.submit(client.sign_up)
        wait_for(lambda: tenant.puts)
        practice_id = str(central.value("SELECT id FROM auth.practices"))
        assert [order(client, deed, practice_id).status_code for deed in DEEDS] == [409, 409]
        tenant.mode = "ok"
        tenant.resume.set()
        assert signing_up.result().status_code == 201
    assert central.value("SELECT status FROM auth.practices") == "active"


@pytest.mark.parametrize("deed", DEEDS)
def test_it_is_for_the_platforms_admin_only(client, practice, central, deed):
    owner = Caller(practice_id=practice["id"], role="owner")
    for caller in (ANYBODY, GATEWAY, owner, Caller(role="owner"), Caller(role="stranger")):
        assert order(client, deed, practice["id"], caller=caller).status_code == 403
    assert central.value("SELECT status FROM auth.practices") == "active"


@pytest.mark.parametrize("deed", DEEDS)
def test_the_status_and_the_change_are_written_together_or_not_at_all(client, practice, central, database, deed):
    """Whoever adds a change waits 2 s for a slow one before it; then the answer is 503 and all is as before."""
    if deed == "resume":
        order(client, "suspend", practice["id"])
    before = central.value("SELECT status FROM auth.practices"), poll(client)["last"]
    with database.engine.begin() as slow:
        changes.add_change(slow, SESSION_REVOKED, practice_id=None, session_id=None)
        assert order(client, deed, practice["id"]).status_code == 503
        slow.rollback()
    assert (central.value("SELECT status FROM auth.practices"), poll(client)["last"]) == before


# what a gateway knows that starts late


def test_a_gateway_that_starts_late_knows_every_suspension_however_old(client, practice, central, start_auth):
    neighbour = client.sign_up("neighbour@example.com").json()["result"]
    for one in (practice, neighbour):
        order(client, "suspend", one["id"])
    order(client, "resume", neighbour["id"])
    central.rows("UPDATE auth.changes SET at = now() - interval '1 year'")
    assert told(poll(client)) == [("practice-suspended", practice["id"])]
    assert poll(client)["last"] == 3
    assert told(poll(start_auth().client)) == [("practice-suspended", practice["id"])], "of another process, too"


def test_pruning_keeps_suspensions_as_long_as_they_last(client, practice, central, database):
    neighbour = client.sign_up("neighbour@example.com").json()["result"]
    for one in (practice, neighbour):
        order(client, "suspend", one["id"])
    order(client, "resume", neighbour["id"])
    central.rows("UPDATE auth.changes SET at = now() - interval '1 year'")

    def left_after_pruning() -> list[int]:
        with database.engine.begin() as connection:
            changes.prune_changes(connection, age_s=3600)
        return [seq for (seq,) in central.rows("SELECT seq FROM auth.changes ORDER BY seq")]

    assert left_after_pruning() == [1, 3], "the neighbour's suspension is gone; its end carries the number"
    assert suspended_of(client) == {practice["id"]}
    order(client, "resume", practice["id"])
    assert suspended_of(client) == set()
    assert left_after_pruning() == [4]
    assert suspended_of(client) == set()
    assert poll(client)["last"] == 4


def test_a_follower_that_knew_of_the_suspension_hears_of_its_end(client, practice):
    order(client, "suspend", practice["id"])
    last = poll(client)["last"]
    order(client, "resume", practice["id"])
    assert told(poll(client, after=last)) == [("practice-resumed", practice["id"])]


def test_suspended_resumed_and_suspended_again_is_suspended(client, practice):
    for deed in ("suspend", "resume", "suspend"):
        order(client, deed, practice["id"])
    assert suspended_of(client) == suspended_of(client, after=0) == {practice["id"]}
    order(client, "resume", practice["id"])
    assert suspended_of(client) == suspended_of(client, after=0) == set()


def test_a_suspension_whose_end_has_the_older_time_is_over(client, practice, central):
    """A change's time is its transaction's beginning: the one that waited for the other may have begun before it."""
    for deed in ("suspend", "resume"):
        order(client, deed, practice["id"])
    central.rows("UPDATE auth.changes SET at = now() - interval '1 year' WHERE seq = 2")
    assert suspended_of(client) == set()


def test_a_database_restored_to_an_older_state_tells_its_suspensions_anew(client, practice, central):
    order(client, "suspend", practice["id"])
    central.rows("UPDATE auth.changes SET at = now() - interval '1 year'")
    news = poll(client, after=99)
    assert news["reset"] is True
    assert told(news) == [("practice-suspended", practice["id"])]


def test_the_whole_list_comes_in_parts_and_ends_with_the_truth(client, central, database, monkeypatch):
    """Old suspensions, ended ones and revoked sessions mixed, more of each than one answer takes."""
    monkeypatch.setattr(revocations, "MAX_CHANGES", 3)
    practices = [client.sign_up(f"clinic{n}@example.com").json()["result"]["id"] for n in range(8)]
    for number, practice_id in enumerate(practices):
        order(client, "suspend", practice_id)
        with database.engine.begin() as connection:
            changes.add_change(connection, SESSION_REVOKED, practice_id=new_id(), session_id=new_id())
        if number % 2:
            order(client, "resume", practice_id)
    central.rows("UPDATE auth.changes SET at = now() - interval '1 year' WHERE seq < 12")
    assert suspended_of(client) == set(practices[::2])
