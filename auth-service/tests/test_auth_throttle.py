"""Counting failures: five, then a pause that grows; never for ever, never for too many keys."""

import asyncio

import pytest

from auth_service import throttle
from auth_service.exceptions import TooManyFailuresError, WrongCredentialsError
from auth_service.throttle import LoginThrottle


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def _try(counted, *, right, account, address):
    async with counted.attempt(account, address):
        if not right:
            raise WrongCredentialsError


def attempt(counted, *, right=False, account="a", address="192.0.2.1") -> int:
    """0 when the try was looked at, else the seconds to wait."""
    try:
        asyncio.run(_try(counted, right=right, account=account, address=address))
    except WrongCredentialsError:
        return 0
    except TooManyFailuresError as refused:
        return int(refused.headers["Retry-After"])
    return 0


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def counted(clock):
    return LoginThrottle(failures_per_address=50, clock=clock)


def test_the_pause_grows_to_a_quarter_of_an_hour(counted, clock):
    for _ in range(5):
        assert attempt(counted) == 0
    pauses_s = []
    for _ in range(8):
        pauses_s.append(attempt(counted))
        clock.now += pauses_s[-1]
        assert attempt(counted) == 0, "a pause that is over lets one try in"
    assert pauses_s == [30, 60, 120, 240, 480, 900, 900, 900]


def test_the_right_password_is_not_looked_at_during_a_pause_and_forgives_after_it(counted, clock):
    for _ in range(5):
        attempt(counted)
    assert attempt(counted, right=True) == 30
    clock.now += 30
    assert attempt(counted, right=True) == 0
    for _ in range(5):
        assert attempt(counted) == 0
    assert attempt(counted) == 30


def test_failures_older_than_the_window_are_forgotten(counted, clock):
    for _ in range(20):
        assert attempt(counted) == 0
        clock.now += throttle.WINDOW_S / 4 + 1


def test_long_after_a_pause_nothing_is_remembered(counted, clock):
    for _ in range(5):
        attempt(counted)
    clock.now += 30 + throttle.WINDOW_S + 1
    for _ in range(5):
        assert attempt(counted) == 0
    assert attempt(counted) == 30


def test_an_address_is_not_forgiven_by_an_account_of_its_own(clock):
    counted = LoginThrottle(failures_per_address=6, clock=clock)
    for n in range(6):
        assert attempt(counted, account=f"victim {n}") == 0
        attempt(counted, account="own", right=True)
    assert attempt(counted, account="another victim") == 30
    assert attempt(counted, account="another victim", address="192.0.2.2") == 0


def test_memory_is_bounded_and_running_tries_are_kept(monkeypatch, clock):
    monkeypatch.setattr(throttle, "MAX_KEYS", 10)
    counted = LoginThrottle(failures_per_address=10_000, clock=clock)
    for n in range(50):
        attempt(counted, account=f"account {n}", address=f"address {n}")
    assert len(counted._accounts._records) == 10
    assert len(counted._addresses._records) == 10


def test_other_faults_are_no_failures(counted):
    async def try_with_a_fault():
        async with counted.attempt("a", "192.0.2.1"):
            raise ZeroDivisionError

    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            asyncio.run(try_with_a_fault())
    assert attempt(counted) == 0
