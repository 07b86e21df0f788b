"""From the outbox to the stream: whatever happens to Redis, every committed event arrives at least once."""

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from auth_support import NOTIFIER, wait_for

from auth_service.redis_clients import connect_redis
from auth_service.relay import BATCH, Relay
from auth_service.storage import outbox
from gowebbo_stack.testing import running_redis
from shared.events import PRACTICE_REGISTERED, STREAM, Event
from shared.ids import new_id


def published(client) -> list[Event]:
    return [Event.from_fields(fields) for _, fields in client.xrange(STREAM)]


def an_event() -> Event:
    return Event(str(new_id()), PRACTICE_REGISTERED, str(new_id()), "", "request-1", {"name": "N", "email": "e"})


def add_events(database, count: int) -> list[str]:
    events = [an_event() for _ in range(count)]
    with database.engine.begin() as connection:
        for event in events:
            outbox.add_event(connection, event)
    return [event.id for event in events]


@pytest.fixture
def own_redis(tmp_path):
    with running_redis(tmp_path) as server:
        yield server


@pytest.fixture
def relay(database, auth_settings, stream):
    with contextlib.closing(connect_redis(auth_settings())) as client:
        yield Relay(database, client)


def test_a_sign_up_is_published_at_once_with_what_the_notifier_needs(client, stream):
    answer = client.sign_up()
    event = wait_for(lambda: published(stream))[0]
    assert event.type == PRACTICE_REGISTERED
    assert event.practice_id == answer.json()["result"]["id"]
    token = event.payload.pop("token")
    assert event.payload == {"name": "Sunrise Clinic", "email": "clinic@example.com"}
    assert client.call("POST", "/api/v1/auth/email/verify", {"token": token}).status_code == 200
    assert event.occurred_at.endswith("Z")


def test_the_request_id_travels_with_the_event(client, stream):
    body = {"name": "Sunrise Clinic", "email": "clinic@example.com", "password": "securepassword"}
    client.call("POST", "/api/v1/practices/signup", body, headers={"X-Request-Id": "journey-0001"})
    assert wait_for(lambda: published(stream))[0].request_id == "journey-0001"


def test_an_event_exists_if_and_only_if_its_transaction_was_committed(database, central):
    with contextlib.suppress(ZeroDivisionError), database.engine.begin() as connection:
        outbox.add_event(connection, an_event())
        raise ZeroDivisionError
    assert central.value("SELECT count(*) FROM auth.outbox") == 0


def test_without_redis_sign_up_works_and_the_backlog_waits(start_auth, central, own_redis):
    client = start_auth(redis_port=own_redis.port, redis_pass=own_redis.password).client
    os.kill(own_redis.pid, signal.SIGSTOP)  # a black hole: it accepts and never answers
    ids = [client.sign_up(f"clinic{n}@example.com").json()["result"]["id"] for n in range(3)]
    assert central.value("SELECT sum(publish_count) FROM auth.outbox") == 0
    assert client.http.get("/readyz").status_code == 200
    os.kill(own_redis.pid, signal.SIGCONT)
    with redis.Redis.from_url(own_redis.url) as stream:
        wait_for(lambda: {event.practice_id for event in published(stream)} == set(ids))


def test_a_redis_that_is_down_changes_nothing_in_the_outbox(database, auth_settings, central):
    add_events(database, 1)
    with contextlib.closing(connect_redis(auth_settings(redis_port=1))) as client, pytest.raises(redis.RedisError):
        Relay(database, client).publish_batch()
    assert central.rows("SELECT publish_count, next_publish_at <= now(), published_at FROM auth.outbox") == [
        (0, True, None)
    ]


def test_what_a_flushed_redis_lost_is_published_again_with_the_same_id(relay, database, central, stream):
    (event_id,) = add_events(database, 1)
    assert relay.publish_batch() == 1
    assert relay.publish_batch() == 0, "published again before its time"
    stream.delete(STREAM)
    central.rows("UPDATE auth.outbox SET next_publish_at = now()")
    assert relay.publish_batch() == 1
    assert [event.id for event in published(stream)] == [event_id]


def test_pauses_double_up_to_a_day(relay, database, central):
    add_events(database, 1)
    pauses_s = []
    for _ in range(16):
        relay.publish_batch()
        pauses_s.append(
            float(central.value("SELECT extract(epoch FROM next_publish_at - published_at) FROM auth.outbox"))
        )
        central.rows("UPDATE auth.outbox SET next_publish_at = now()")
    assert 15 <= pauses_s[0] <= 18
    assert 30 <= pauses_s[1] <= 36
    assert 60 <= pauses_s[2] <= 72
    assert all(60_000 < pause_s <= 86_400 for pause_s in pauses_s[12:])


def test_two_relays_share_the_work_without_waiting_for_each_other(relay, database, stream):
    ids = add_events(database, 3)
    with database.engine.begin() as other:
        held = outbox.claim_due(other, limit=1)
        assert relay.publish_batch() == 2
    assert relay.publish_batch() == 1
    assert sorted(event.id for event in published(stream)) == sorted(ids)
    assert held[0].id in ids


def test_an_older_transaction_that_commits_late_is_not_skipped(relay, database, stream):
    with database.engine.begin() as late:
        event = an_event()
        outbox.add_event(late, event)
        (early,) = add_events(database, 1)
        assert relay.publish_batch() == 1
    assert relay.publish_batch() == 1
    assert [one.id for one in published(stream)] == [early, event.id]


def test_a_backlog_larger_than_a_batch_drains(start_auth, database, stream):
    ids = add_events(database, 2 * BATCH + 1)
    start_auth()
    wait_for(lambda: stream.xlen(STREAM) == len(ids))
    assert {event.id for event in published(stream)} == set(ids)


@pytest.mark.parametrize("outcome", ["delivered", "dead"])
def test_a_receipt_ends_the_publishing(client, database, central, relay, outcome):
    (event_id,) = add_events(database, 1)
    receipt = {"event_id": event_id, "outcome": outcome, "detail": "250 OK"}
    for _ in range(2):
        assert client.call("POST", "/internal/receipts", receipt, caller=NOTIFIER).status_code == 200
    assert central.rows("SELECT outcome, detail, receipted_at IS NOT NULL FROM auth.outbox") == [
        (outcome, "250 OK", True)
    ]
    central.rows("UPDATE auth.outbox SET next_publish_at = now()")
    assert relay.publish_batch() == 0


def test_whatever_a_mail_server_said_is_no_reason_to_refuse_a_receipt(client, database, central):
    (event_id,) = add_events(database, 1)
    receipt = {"event_id": event_id, "outcome": "dead", "detail": "550\u0000 no\r\n\ud800" + "x" * 5000}
    assert client.call("POST", "/internal/receipts", receipt, caller=NOTIFIER).status_code == 200
    assert central.value("SELECT detail FROM auth.outbox") == "550 no" + "x" * 494


def test_a_delivery_is_final_and_a_dead_event_can_still_be_delivered(client, database, central):
    (event_id,) = add_events(database, 1)
    for outcome, expected in [("dead", "dead"), ("delivered", "delivered"), ("dead", "delivered")]:
        client.call("POST", "/internal/receipts", {"event_id": event_id, "outcome": outcome}, caller=NOTIFIER)
        assert central.value("SELECT outcome FROM auth.outbox") == expected


def test_a_receipt_for_an_unknown_event_is_404_and_a_malformed_one_422(client):
    receipt = {"event_id": str(new_id()), "outcome": "delivered"}
    assert client.call("POST", "/internal/receipts", receipt, caller=NOTIFIER).status_code == 404
    for wrong in ({"event_id": "x"}, {"outcome": "lost"}, {"more": 1}, {"detail": 1}):
        answer = client.call("POST", "/internal/receipts", receipt | wrong, caller=NOTIFIER)
        assert answer.status_code == 422, wrong


def test_receipts_are_the_services_own_business(client, database, central):
    (event_id,) = add_events(database, 1)
    assert client.call("POST", "/internal/receipts", {"event_id": event_id, "outcome": "dead"}).status_code == 404
    assert central.value("SELECT outcome FROM auth.outbox") is None


def test_many_relays_at_once_publish_everything(database, auth_settings, stream):
    ids = add_events(database, 150)
    with contextlib.closing(connect_redis(auth_settings())) as client, ThreadPoolExecutor(4) as threads:
        relays = [Relay(database, client) for _ in range(4)]
        while sum(threads.map(Relay.publish_batch, relays)):
            pass
    assert sorted(event.id for event in published(stream)) == sorted(ids)


def test_what_was_delivered_long_ago_is_forgotten_and_what_died_is_kept(database, central):
    add_events(database, 3)
    central.rows("UPDATE auth.outbox SET receipted_at = now() - interval '40 days', outcome = 'delivered'")
    central.rows("UPDATE auth.outbox SET outcome = 'dead' WHERE event = (SELECT event FROM auth.outbox LIMIT 1)")
    add_events(database, 1)
    with database.engine.begin() as connection:
        assert outbox.prune_outbox(connection, delivered_for_s=30 * 86_400) == 2
