"""Redis restarted, emptied or frozen: both processes resume unaided."""

import math
import os
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from notifier_rig import Mailbox, Process, ReceiptBook, environment, eventually, registered, smtp_server

from gowebbo_stack.launching import start as start_program
from gowebbo_stack.ports import free_port
from gowebbo_stack.valkey import Valkey
from notifier.storage import connect
from shared.events import STREAM, Event


class Outages:
    """A Redis server that can be taken away."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "redis.log"
        self._server = Valkey(folder / "redis", free_port(), secrets.token_hex(16))
        self._server.initialise()
        self.client = connect(self._server.url)
        self.start()

    def start(self) -> None:
        self._process = start_program(self._server.launch(self._log))
        eventually(self._server.accepts_connections, what="Redis is up")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def environment(self) -> dict[str, str]:
        return {"REDIS_PORT": str(self._server.port), "REDIS_PASS": self._server.password}

    def publish(self, event: Event) -> None:
        self.client.xadd(STREAM, dict(event.to_fields()))


@pytest.fixture
def outages(tmp_path: Path) -> Iterator[Outages]:
    server = Outages(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def consumer(tmp_path: Path, outages: Outages, mailbox: Mailbox, book: ReceiptBook) -> Iterator[Process]:
    """A consumer, with a worker, both at work: a first mail has gone through."""
    with smtp_server(mailbox) as smtp_port:
        env = environment(
            AUTH_SERVICE_URL=book.url,
            EMAIL_PORT=smtp_port,
            PORT=0,
            WORKER_ALIVE_FILE=tmp_path / "alive",
            **outages.environment(),
        )
        processes = [Process(module, env, tmp_path) for module in ("notifier", "notifier.worker")]
        deliver(outages, book)
        yield processes[0]
        for process in processes:
            process.end()


REPUBLISHED_AFTER_S = 5.0


def deliver(outages: Outages, book: ReceiptBook) -> None:
    """Publishes an event until its receipt is there, as the outbox does.

    A task may be lost with the connection it was handed to (Celery on Redis promises no more); the event never is.
    """
    event = registered()
    published_at = -math.inf

    def receipted() -> bool:
        nonlocal published_at
        if time.monotonic() - published_at >= REPUBLISHED_AFTER_S:
            published_at = time.monotonic()
            outages.publish(event)
        return bool(book.outcomes(event.id))

    eventually(receipted, what=f"the receipt of {event.id}")


@pytest.mark.usefixtures("consumer")
def test_mails_flow_again_after_redis_was_killed(outages: Outages, book: ReceiptBook):
    for _ in range(2):
        outages.kill()
        outages.start()
        deliver(outages, book)


@pytest.mark.usefixtures("consumer")
def test_the_worker_shows_that_it_lives_again_after_redis_was_killed(
    outages: Outages, book: ReceiptBook, tmp_path: Path
):
    for _ in range(2):
        alive = tmp_path / "alive"
        alive.unlink()
        eventually(alive.exists, what="a sign of life")
        outages.kill()
        outages.start()
        deliver(outages, book)


@pytest.mark.usefixtures("consumer")
def test_mails_flow_again_after_redis_was_emptied(outages: Outages, book: ReceiptBook):
    outages.client.flushall()
    deliver(outages, book)


def test_mails_flow_again_after_redis_was_frozen(consumer: Process, outages: Outages, book: ReceiptBook):
    """Connections that nobody answers, as behind a broken network."""
    outages.freeze()
    eventually(lambda: "redis_unavailable" in consumer.log, what="the consumer notices")
    outages.thaw()
    deliver(outages, book)
