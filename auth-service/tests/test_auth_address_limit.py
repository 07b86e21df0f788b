"""Sign-ups by address: each makes a database, so nobody makes them without end."""

import pytest

from auth_service.address_limit import MAX_ADDRESSES, WINDOW_S, AddressLimit
from auth_service.exceptions import TooManyCallsError


@pytest.fixture
def now():
    return [1000.0]


@pytest.fixture
def limit(now):
    return AddressLimit(per_address=2, clock=lambda: now[0])


def test_an_address_is_stopped_at_its_limit_and_told_when_to_come_again(limit, now):
    limit.admit("192.0.2.1")
    now[0] += 600
    limit.admit("192.0.2.1")
    with pytest.raises(TooManyCallsError) as refused:
        limit.admit("192.0.2.1")
    assert refused.value.headers["Retry-After"] == str(int(WINDOW_S - 600))
    limit.admit("192.0.2.2")


def test_the_window_slides(limit, now):
    limit.admit("192.0.2.1")
    now[0] += 600
    limit.admit("192.0.2.1")
    now[0] += WINDOW_S - 600
    limit.admit("192.0.2.1")
    with pytest.raises(TooManyCallsError):
        limit.admit("192.0.2.1")


def test_refused_ones_do_not_prolong_the_wait(limit, now):
    for _ in range(2):
        limit.admit("192.0.2.1")
    for _ in range(10):
        with pytest.raises(TooManyCallsError):
            limit.admit("192.0.2.1")
    now[0] += WINDOW_S
    limit.admit("192.0.2.1")


def test_0_limits_nothing():
    limit = AddressLimit(per_address=0)
    for _ in range(1000):
        limit.admit("192.0.2.1")


def test_memory_is_bounded():
    limit = AddressLimit(per_address=1)
    for number in range(MAX_ADDRESSES + 10):
        limit.admit(str(number))
    assert len(limit._begun) == MAX_ADDRESSES
