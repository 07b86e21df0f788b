"""Stream to queue: acknowledged only when queued, taken over from the dead, buried when it never works."""

import threading
from collections.abc import Callable, Iterator

import pytest
from kombu.exceptions import OperationalError
from notifier_rig import eventually, registered
from redis import Redis

from notifier.consumer import MAX_DELIVERIES, Consumer
from notifier.storage import DEAD_LETTERS, MailRecord
from shared.events import GROUP, STREAM, Event

RECLAIM_AFTER_S = 1


class Queue:
    """Where the consumer puts events; may refuse."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.fault: Exception | None = None
        self.tries = 0

    def __call__(self, event: Event) -> None:
        self.tries += 1
        if self.fault:
            raise self.fault
        self.events.append(event)

    def ids(self) -> set[str]:
        return {event.id for event in self.events}


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def record(redis: Redis) -> MailRecord:
    return MailRecord(redis, lock_s=10)


Run = Callable[[], Consumer]


@pytest.fixture
def run(redis: Redis, queue: Queue, record: MailRecord) -> Iterator[Run]:
    """Starts a consumer in a thread."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def begin() -> Consumer:
        consumer = Consumer(redis, queue, record=record, reclaim_after_s=RECLAIM_AFTER_S)
        threads.append(threading.Thread(target=consumer.run, args=(stop,)))
        threads[-1].start()
        return consumer

    yield begin
    stop.set()
    for thread in threads:
        thread.join(20)


def publish(redis: Redis, *events: Event) -> None:
    for event in events:
        redis.xadd(STREAM, dict(event.to_fields()))


def pending(redis: Redis) -> int:
    return int(redis.xpending(STREAM, GROUP)["pending"])


def test_what_was_published_before_the_first_start_is_not_passed_over(run: Run, redis: Redis, queue: Queue):
    events = [registered() for _ in range(45)]
    publish(redis, *events)
    run()
    eventually(lambda: queue.ids() == {event.id for event in events}, what="all of them")
    eventually(lambda: redis.xlen(STREAM) == 0 == pending(redis), what="acknowledged and gone")


def test_what_could_not_be_queued_stays_pending_and_comes_again(run: Run, redis: Redis, queue: Queue):
    event = registered()
    queue.fault = OperationalError("Redis is full")
    publish(redis, event)
    run()
    eventually(lambda: queue.tries > 0, what="a try")
    assert pending(redis) == 1
    queue.fault = None
    eventually(lambda: queue.ids() == {event.id}, what="the next try")


def test_an_entry_of_a_dead_consumer_is_taken_over(run: Run, redis: Redis, queue: Queue):
    event = registered()
    publish(redis, event)
    redis.xgroup_create(STREAM, GROUP, id="0")
    redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    run()
    eventually(lambda: queue.ids() == {event.id}, what="taken over")


def test_what_fails_again_and_again_is_buried_and_still_reported(
    run: Run, redis: Redis, queue: Queue, record: MailRecord
):
    """The dead event is queued all the same: the worker finds it dead and sends the receipt."""
    poison, sound = registered(), registered()
    publish(redis, poison, sound)
    redis.xgroup_create(STREAM, GROUP, id="0")
    entry_id = redis.xreadgroup(GROUP, "dead", {STREAM: ">"}, count=1)[0][1][0][0]
    redis.execute_command("XCLAIM", STREAM, GROUP, "dead", 0, entry_id, "RETRYCOUNT", MAX_DELIVERIES)
    consumer = run()
    eventually(lambda: queue.ids() == {poison.id, sound.id}, what="both")
    assert record.outcome(poison.id) == "dead"
    assert record.outcome(sound.id) is None
    assert consumer.dead == 1
    [letter] = record.dead_letters()
    assert Event.from_fields(letter.fields) == poison


@pytest.mark.parametrize(
    "fields",
    [{"event": b"no json"}, {"event": b"[]"}, {"event": b'{"id":1}'}, {"other": b"x"}, {"event": b"\xff\xfe"}],
)
def test_what_is_no_event_is_a_dead_letter_and_stops_nobody(
    run: Run, redis: Redis, queue: Queue, record: MailRecord, fields: dict[str, bytes]
):
    redis.xadd(STREAM, fields)
    event = registered()
    publish(redis, event)
    run()
    eventually(lambda: queue.ids() == {event.id}, what="the one behind it")
    [letter] = record.dead_letters()
    assert letter.fields == {name.encode(): value for name, value in fields.items()}
    assert letter.reason == "not an event"
    assert pending(redis) == 0


def test_a_bug_in_one_message_stops_nobody(run: Run, redis: Redis, queue: Queue):
    queue.fault = RuntimeError("a bug")
    publish(redis, registered())
    consumer = run()
    eventually(lambda: consumer.failures > 0, what="the failure is noted")
    queue.fault = None
    event = registered()
    publish(redis, event)
    eventually(lambda: event.id in queue.ids(), what="the next one")


def test_a_flushed_redis_is_joined_anew(run: Run, redis: Redis, queue: Queue):
    run()
    eventually(lambda: redis.exists(STREAM), what="the group is there")
    redis.flushall()
    event = registered()
    publish(redis, event)
    eventually(lambda: queue.ids() == {event.id}, what="queued after the flush")


def test_two_consumers_share_the_work(run: Run, redis: Redis, queue: Queue):
    run()
    run()
    events = [registered() for _ in range(100)]
    publish(redis, *events)
    eventually(lambda: queue.ids() == {event.id for event in events}, what="all of them")
    assert len(queue.events) == len(events)


def test_a_consumer_that_ends_leaves_no_name_behind(redis: Redis, queue: Queue, record: MailRecord):
    stop = threading.Event()
    consumer = Consumer(redis, queue, record=record, reclaim_after_s=RECLAIM_AFTER_S)
    thread = threading.Thread(target=consumer.run, args=(stop,))
    thread.start()
    publish(redis, registered())
    eventually(lambda: queue.events, what="at work")
    stop.set()
    thread.join(20)
    assert redis.xinfo_consumers(STREAM, GROUP) == []


def test_dead_letters_are_bounded(redis: Redis, record: MailRecord, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("notifier.storage.MAX_DEAD_LETTERS", 10)
    for _ in range(300):
        record.bury({b"event": b"x"}, event_id=None, reason="not an event")
    assert redis.xlen(DEAD_LETTERS) < 300
