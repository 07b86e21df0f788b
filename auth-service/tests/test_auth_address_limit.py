"""Sign-ups by address: each makes a database, so nobody makes them without end, at however many replicas."""

import asyncio

import pytest
from redis.asyncio import Redis as AsyncRedis

from auth_service.address_limit import MAX_ADDRESSES, WINDOW_S, AddressLimit
from auth_service.counting import PREFIX, Counting
from auth_service.exceptions import TooManyCallsError

ONE, OTHER = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def now():
    return [1000.0]


@pytest.fixture
def limit(now):
    return AddressLimit("calls", per_address=2, clock=lambda: now[0])


def wait_s(limit, address=ONE) -> int:
    """0 when the call may begin."""
    try:
        asyncio.run(limit.admit(address))
    except TooManyCallsError as refused:
        return int(refused.headers["Retry-After"])
    return 0


def test_an_address_is_stopped_at_its_limit_and_told_when_to_come_again(limit, now):
    assert wait_s(limit) == 0
    now[0] += 600
    assert wait_s(limit) == 0
    assert wait_s(limit) == WINDOW_S - 600
    assert wait_s(limit, OTHER) == 0


def test_the_window_slides(limit, now):
    assert wait_s(limit) == 0
    now[0] += 600
    assert wait_s(limit) == 0
    now[0] += WINDOW_S - 600
    assert wait_s(limit) == 0
    assert wait_s(limit) == 600


def test_refused_ones_do_not_prolong_the_wait(limit, now):
    assert [wait_s(limit) for _ in range(12)] == [0] * 2 + [WINDOW_S] * 10
    now[0] += WINDOW_S
    assert wait_s(limit) == 0


def test_0_limits_nothing():
    limit = AddressLimit("calls", per_address=0)
    assert not any(wait_s(limit) for _ in range(1000))


def test_memory_is_bounded():
    async def fill() -> AddressLimit:
        limit = AddressLimit("calls", per_address=1)
        for number in range(MAX_ADDRESSES + 10):
            await limit.admit(str(number))
        return limit

    assert len(asyncio.run(fill())._begun) == MAX_ADDRESSES


@pytest.fixture
def at_a_replica(redis_server, store):
    """A call at a replica that was just started: the seconds to wait."""

    def call(address=ONE, kind="calls") -> int:
        async def admit() -> None:
            counting = Counting(AsyncRedis.from_url(redis_server.url))
            try:
                await AddressLimit(kind, per_address=2, shared=counting).admit(address)
            finally:
                await counting.close()

        try:
            asyncio.run(admit())
        except TooManyCallsError as refused:
            return int(refused.headers["Retry-After"])
        return 0

    return call


def test_replicas_count_together_and_restarts_forget_nothing(at_a_replica):
    assert [at_a_replica() for _ in range(2)] == [0, 0]
    assert WINDOW_S - 60 < at_a_replica() <= WINDOW_S
    assert at_a_replica(OTHER) == 0
    assert at_a_replica(kind="other calls") == 0


def test_the_shared_window_slides_too_and_refused_calls_are_not_counted(at_a_replica, store):
    assert [at_a_replica() for _ in range(2)] == [0, 0]
    assert all(at_a_replica() for _ in range(5))
    [key] = store.scan_iter(f"{PREFIX}*")
    assert 0 < store.ttl(key) <= WINDOW_S
    first, _ = store.zrange(key, 0, -1)
    store.zincrby(key, -(WINDOW_S - 600), first)
    assert 540 < at_a_replica() <= 600
    store.zincrby(key, -600, first)
    assert at_a_replica() == 0


def test_no_address_stands_in_redis(at_a_replica, store):
    at_a_replica()
    [key] = store.scan_iter(f"{PREFIX}*")
    assert ONE.encode() not in key
    assert not [member for member in store.zrange(key, 0, -1) if ONE.encode() in member]


def test_sign_ups_are_limited_for_all_replicas_together(start_auth):
    clients = [start_auth(signups_per_address=2).client for _ in range(2)]
    answers = [clients[n % 2].sign_up(f"n{n}@example.com") for n in range(4)]
    assert [answer.status_code for answer in answers] == [201, 201, 429, 429]


def test_password_mails_are_limited_for_all_replicas_together(start_auth):
    clients = [start_auth(password_mails_per_address=2).client for _ in range(2)]
    body = {"email": "ann@example.com"}
    answers = [clients[n % 2].call("POST", "/api/v1/auth/password/forgot", body) for n in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]


def test_without_redis_a_process_limits_alone(start_auth):
    client = start_auth(signups_per_address=1, redis_port=1).client
    assert [client.sign_up(f"n{n}@example.com").status_code for n in range(2)] == [201, 429]
