"""The feed of changes: whoever follows it by number alone misses nothing, whatever commits when."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from auth_support import ADMIN, ANYBODY, GATEWAY, member

from auth_service import revocations
from auth_service.storage import changes
from shared.changes import SESSION_CHANGED, SESSION_REVOKED
from shared.ids import new_id


def add(database, count: int = 1) -> None:
    for _ in range(count):
        with database.engine.begin() as connection:
            changes.add_change(connection, SESSION_REVOKED, practice_id=new_id(), session_id=new_id())


def poll(client, **after) -> dict:
    answer = client.call("GET", "/internal/changes", caller=GATEWAY, params=after)
    assert answer.status_code == 200
    news = answer.json()
    assert news.pop("signing_key") == client.call("GET", "/.well-known/jwks.json").json()["keys"][0]["kid"]
    return news


def test_nothing_happened_yet(client):
    assert poll(client) == {"changes": [], "last": 0}
    assert poll(client, after=0) == {"changes": [], "last": 0}


def test_a_poll_returns_what_came_after(client, database):
    add(database, 3)
    first = poll(client)
    assert [change["seq"] for change in first["changes"]] == [1, 2, 3]
    assert first["last"] == 3
    assert set(first["changes"][0]) == {"seq", "kind", "practice_id", "session_id", "at"}
    add(database)
    assert [change["seq"] for change in poll(client, after=3)["changes"]] == [4]
    assert poll(client, after=4) == {"changes": [], "last": 4}


def test_a_number_becomes_visible_only_after_all_smaller_ones(client, database):
    with ThreadPoolExecutor(1) as threads:
        with database.engine.begin() as slow:
            changes.add_change(slow, SESSION_REVOKED, practice_id=new_id(), session_id=new_id())
            fast = threads.submit(add, database)
            time_is_up = threading.Event()
            while not time_is_up.wait(0.2):
                assert poll(client, after=0)["last"] == 0
                time_is_up.set()
            assert not fast.done()
        fast.result()
    assert [change["seq"] for change in poll(client, after=0)["changes"]] == [1, 2]


def test_a_follower_sees_every_commit_and_no_rollback(client, database):
    committed: set[str] = set()

    def write(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(10):
            session_id = new_id()
            with database.engine.connect() as connection:
                changes.add_change(connection, SESSION_REVOKED, practice_id=new_id(), session_id=session_id)
                time.sleep(chance.random() * 0.005)
                if chance.random() < 0.3:
                    connection.rollback()
                else:
                    connection.commit()
                    committed.add(str(session_id))

    seen: list[str] = []
    last = 0
    with ThreadPoolExecutor(6) as threads:
        writers = [threads.submit(write, seed) for seed in range(6)]
        is_last_round = False
        while not is_last_round:
            is_last_round = all(writer.done() for writer in writers)
            news = poll(client, after=last)
            seen += [change["session_id"] for change in news["changes"]]
            last = news["last"]
    for writer in writers:
        writer.result()
    assert len(seen) == len(set(seen))
    assert set(seen) == committed


def test_a_database_restored_to_an_older_state_resets_its_followers(client, database):
    add(database, 2)
    news = poll(client, after=7)
    assert news["reset"] is True
    assert [change["seq"] for change in news["changes"]] == [1, 2]
    assert news["last"] == 2


def test_what_no_token_outlives_is_left_out_and_pruned_but_the_number_stays(client, database, central):
    add(database, 3)
    central.rows("UPDATE auth.changes SET at = now() - interval '1 day'")
    assert poll(client) == {"changes": [], "last": 3}
    with database.engine.begin() as connection:
        assert changes.prune_changes(connection, age_s=3600) == 2
    assert poll(client, after=3) == {"changes": [], "last": 3}
    add(database)
    assert poll(client, after=3)["last"] == 4


def test_a_changed_session_is_told_with_its_second_also_to_who_begins(client, database):
    before = int(time.time())
    with database.engine.begin() as connection:
        changes.add_change(connection, SESSION_CHANGED, practice_id=None, session_id=new_id())
    for news in (poll(client), poll(client, after=0)):
        (change,) = news["changes"]
        assert change["kind"] == SESSION_CHANGED
        assert before <= change["at"] <= time.time()


def test_a_long_feed_comes_in_parts(client, database, monkeypatch):
    monkeypatch.setattr(revocations, "MAX_CHANGES", 2)
    add(database, 5)
    seen, last = [], None
    for _ in range(4):
        news = poll(client, **({} if last is None else {"after": last}))
        seen += [change["seq"] for change in news["changes"]]
        last = news["last"]
    assert seen == [1, 2, 3, 4, 5]
    assert last == 5


def test_the_feed_is_for_services_only(client):
    for caller in (ANYBODY, ADMIN):
        assert client.call("GET", "/internal/changes", caller=caller).status_code == 404


def test_a_malformed_number_is_422(client):
    for after in ("-1", "x", "1e3", str(2**63)):
        assert client.call("GET", "/internal/changes", caller=GATEWAY, params={"after": after}).status_code == 422


def test_a_session_is_ended_wholly_or_not_at_all(client, database, central):
    """Whoever adds a change waits 2 s for a slow one before it; then the answer is 503 and all is as before."""
    client.sign_up()
    client.log_in()
    caller = member(str(central.value("SELECT id FROM auth.sessions")))
    with database.engine.begin() as slow:
        changes.add_change(slow, SESSION_REVOKED, practice_id=None, session_id=None)
        assert client.call("POST", "/api/v1/auth/logout", caller=caller).status_code == 503
    assert central.value("SELECT revoked_at FROM auth.sessions") is None
    assert client.call("POST", "/api/v1/auth/logout", caller=caller).status_code == 200
    assert len(poll(client, after=1)["changes"]) == 1
