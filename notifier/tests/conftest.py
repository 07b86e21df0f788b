"""Fixtures of the notifier's tests: an emptied Redis, a mailbox and a book of receipts."""

from collections.abc import Iterator

import pytest
from notifier_rig import Mailbox, ReceiptBook, receipt_book
from redis import Redis

from gowebbo_stack.testing import RedisServer
from notifier.storage import connect


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    """A client of the emptied Redis."""
    client = connect(redis_server.url)
    client.flushall()
    yield client
    client.flushall()
    client.close()


@pytest.fixture
def redis_environment(redis_server: RedisServer, redis: Redis) -> dict[str, str]:
    """The settings that lead to it."""
    return {
        "REDIS_HOST": redis_server.host,
        "REDIS_PORT": str(redis_server.port),
        "REDIS_PASS": redis_server.password,
    }


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def book() -> Iterator[ReceiptBook]:
    with receipt_book() as running:
        yield running
