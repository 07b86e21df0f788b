"""The consumer and the worker as processes: what a killed one had begun is finished by the next."""

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from notifier_rig import (
    Mailbox,
    Process,
    ReceiptBook,
    environment,
    eventually,
    listening_socket,
    registered,
    smtp_server,
)
from redis import Redis

from notifier.storage import DEAD_LETTERS
from shared.events import STREAM, Event

STOP_WITHIN_S = 8
Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path, redis_environment: dict[str, str], book: ReceiptBook) -> Iterator[Start]:
    """Starts a process that ends with the test."""
    processes: list[Process] = []

    def begin(module: str, *, arguments: Sequence[str] = (), descriptor: int | None = None, **env: object) -> Process:
        merged = environment(AUTH_SERVICE_URL=book.url, **{**redis_environment, **env})
        processes.append(Process(module, merged, tmp_path, arguments=arguments, descriptor=descriptor))
        return processes[-1]

    yield begin
    for process in processes:
        process.end()


def stopped(process: Process) -> bool:
    """Whether it ended by itself, in order, before the stack would lose patience."""
    process.terminate()
    return process.wait(STOP_WITHIN_S) in {0, -signal.SIGTERM}  # uvicorn ends with the signal it was given


def publish(redis: Redis, event: Event) -> None:
    redis.xadd(STREAM, dict(event.to_fields()))


def test_an_event_becomes_one_mail_and_a_receipt(start: Start, redis: Redis, mailbox: Mailbox, book: ReceiptBook):
    event = registered(name="Oak & Ash <Surgery>")
    with smtp_server(mailbox) as smtp_port:
        consumer = start("notifier", PORT=0)
        worker = start("notifier.worker", EMAIL_PORT=smtp_port)
        for _ in range(3):
            publish(redis, event)
        eventually(lambda: len(book.outcomes(event.id)) == 3, what=worker.log)
        assert mailbox.recipients == ["owner@oak.example"]
        assert book.request_ids == ["req-12345678"] * 3
        assert set(book.outcomes(event.id)) == {"delivered"}
        eventually(lambda: redis.xlen(STREAM) == 0, what="the stream is emptied")
        for line in (consumer.log + worker.log).splitlines():
            assert "owner@oak.example" not in line
            json.loads(line)


def test_a_consumer_killed_in_mid_message_is_succeeded(start: Start, redis: Redis, mailbox: Mailbox, book: ReceiptBook):
    """An entry that a consumer took and never acknowledged is taken over."""
    event = registered()
    publish(redis, event)
    redis.xgroup_create(STREAM, "notifier", id="0")
    redis.xreadgroup("notifier", "killed-consumer", {STREAM: ">"})
    with smtp_server(mailbox) as smtp_port:
        start("notifier", PORT=0)
        start("notifier.worker", EMAIL_PORT=smtp_port)
        eventually(lambda: book.outcomes(event.id), what="the receipt")
    assert mailbox.recipients == ["owner@oak.example"]


def test_kill_9_of_the_consumer_again_and_again_loses_nothing(
    start: Start, redis: Redis, mailbox: Mailbox, book: ReceiptBook
):
    events = [registered(address=f"owner{number}@oak.example") for number in range(60)]
    with smtp_server(mailbox) as smtp_port:
        start("notifier.worker", EMAIL_PORT=smtp_port)
        consumer = start("notifier", PORT=0)
        for number, event in enumerate(events):
            publish(redis, event)
            if number % 20 == 19:
                eventually(lambda: redis.xlen(STREAM) < 20, what="the consumer is at work")
                consumer.kill()
                consumer = start("notifier", PORT=0)
        eventually(lambda: all(book.outcomes(event.id) for event in events), what="every receipt")
    assert sorted(mailbox.recipients) == sorted(event.payload["email"] for event in events)


def test_a_worker_killed_in_mid_dialogue_is_succeeded(start: Start, redis: Redis, mailbox: Mailbox, book: ReceiptBook):
    """The task was taken from the queue and not acknowledged: it is handed out again."""
    event = registered()
    mailbox.hang.set()
    with smtp_server(mailbox) as smtp_port:
        start("notifier", PORT=0)
        worker = start("notifier.worker", EMAIL_PORT=smtp_port)
        publish(redis, event)
        eventually(mailbox.started.is_set, what="the dialogue has begun")
        worker.kill()
        mailbox.hang.clear()
        eventually(lambda: mailbox.dialogues == 1, what="one dialogue so far")
        mailbox.mails.clear()
        start("notifier.worker", EMAIL_PORT=smtp_port)
        eventually(lambda: book.outcomes(event.id), what="the receipt")
    assert set(mailbox.ids()) == {f"<{event.id}@gowebbo.example>"}


def test_an_idle_worker_stops_at_sigterm(start: Start, mailbox: Mailbox, redis: Redis):
    with smtp_server(mailbox) as smtp_port:
        worker = start("notifier.worker", EMAIL_PORT=smtp_port)
        eventually(lambda: redis.keys("gowebbo:celery:*binding*"), what="the worker is up")
        assert stopped(worker)


def test_a_worker_finishes_its_task_at_sigterm(start: Start, redis: Redis, mailbox: Mailbox, book: ReceiptBook):
    event = registered()
    mailbox.hang.set()
    with smtp_server(mailbox) as smtp_port:
        start("notifier", PORT=0)
        worker = start("notifier.worker", EMAIL_PORT=smtp_port)
        publish(redis, event)
        eventually(mailbox.started.is_set, what="the dialogue has begun")
        worker.terminate()
        mailbox.hang.clear()
        assert worker.wait(STOP_WITHIN_S) == 0
    assert book.outcomes(event.id) == ["delivered"]
    assert len(mailbox.mails) == 1


def test_a_worker_stops_although_the_mail_server_hangs(start: Start, redis: Redis, mailbox: Mailbox, book: ReceiptBook):
    """The dialogue is cut short and the task stays queued for the next worker."""
    event = registered()
    mailbox.hang.set()
    with smtp_server(mailbox) as smtp_port:
        start("notifier", PORT=0)
        worker = start("notifier.worker", EMAIL_PORT=smtp_port, EMAIL_TIMEOUT_S=60)
        publish(redis, event)
        eventually(mailbox.started.is_set, what="the dialogue has begun")
        assert stopped(worker)
        mailbox.hang.clear()
        mailbox.mails.clear()
        start("notifier.worker", EMAIL_PORT=smtp_port)
        eventually(lambda: book.outcomes(event.id), what="the receipt")


def test_the_consumer_answers_on_its_inherited_socket(start: Start, redis: Redis):
    listener = listening_socket()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    consumer = start("notifier", SERVICE_FD=listener.fileno(), descriptor=listener.fileno())
    listener.close()
    assert httpx.get(f"{url}/livez", timeout=30).json() == {"status": "alive"}
    assert httpx.get(f"{url}/readyz").status_code == 200
    publish(redis, registered())
    eventually(lambda: "gowebbo_events_queued_total 1.0" in httpx.get(f"{url}/metrics").text, what="the count")
    assert "gowebbo_mail_queue_tasks 1.0" in httpx.get(f"{url}/metrics").text
    for path in ("/", "/anything", "/internal/receipts"):
        assert httpx.get(url + path).status_code == 401
    assert stopped(consumer)


def test_both_processes_start_without_redis_and_stop(start: Start):
    listener = listening_socket()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    nowhere = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": 1}
    consumer = start("notifier", SERVICE_FD=listener.fileno(), descriptor=listener.fileno(), **nowhere)
    listener.close()
    worker = start("notifier.worker", **nowhere)
    assert httpx.get(f"{url}/livez", timeout=30).status_code == 200
    answer = httpx.get(f"{url}/readyz", timeout=30)
    assert (answer.status_code, list(answer.json()["missing"])) == (503, ["redis"])
    eventually(lambda: worker.log, what="the worker says that Redis is down")
    assert stopped(consumer)
    assert stopped(worker)


def test_dead_letters_are_replayed_by_command(start: Start, redis: Redis, mailbox: Mailbox, book: ReceiptBook):
    event = registered()
    mailbox.answers["RCPT"] = ["550 no such user"]
    with smtp_server(mailbox) as smtp_port:
        start("notifier", PORT=0)
        start("notifier.worker", EMAIL_PORT=smtp_port)
        publish(redis, event)
        eventually(lambda: book.outcomes(event.id) == ["dead"], what="the receipt")
        assert redis.xlen(DEAD_LETTERS) == 1
        listing = start("notifier.cli", arguments=["dead-letters"])
        assert listing.wait() == 0
        assert event.id in listing.log
        assert "550 to RCPT" in listing.log
        assert "owner@oak.example" not in listing.log
        mailbox.answers.clear()
        assert start("notifier.cli", arguments=["replay", "--all"]).wait() == 0
        eventually(lambda: book.outcomes(event.id) == ["dead", "delivered"], what="the second receipt")
    assert len(mailbox.mails) == 1
    assert redis.xlen(DEAD_LETTERS) == 0
