"""Failures counted in Redis: for all replicas, over restarts, by nobody's name, and never waited for."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from auth_support import wait_for
from redis.asyncio import Redis as AsyncRedis

from auth_service import shared_failures, throttle
from auth_service.counting import PREFIX, Counting
from auth_service.exceptions import TooManyFailuresError, WrongCredentialsError
from auth_service.throttle import LoginThrottle
from gowebbo_stack.testing import running_redis

ADDRESS = "192.0.2.1"


@pytest.fixture
def run(redis_server, store):
    """Tries at passwords, each by a replica that was just started."""

    async def one(right, account, address, per_address):
        counting = Counting(AsyncRedis.from_url(redis_server.url))
        replica = LoginThrottle(failures_per_address=per_address, shared=counting)
        try:
            async with replica.attempt(account, address):
                if not right:
                    raise WrongCredentialsError
        finally:
            await counting.close()

    def do(*, right=False, account="ann@example.com", address=ADDRESS, per_address=50) -> int:
        try:
            asyncio.run(one(right, account, address, per_address))
        except WrongCredentialsError:
            return 0
        except TooManyFailuresError as refused:
            return int(refused.headers["Retry-After"])
        return 0

    return do


def forget_blocks(store, *, by_s):
    """As if so much time had passed."""
    for key in store.scan_iter(f"{PREFIX}*:state"):
        store.hset(key, "blocked", float(store.hget(key, "blocked")) - by_s)


def test_a_restarted_replica_knows_the_failures_and_blocks_grow_to_a_quarter_of_an_hour(run, store):
    assert [run() for _ in range(5)] == [0] * 5
    waits = [run()]
    for _ in range(7):
        forget_blocks(store, by_s=waits[-1])
        assert run() == 0, "one try after each block"
        waits.append(run())
    assert waits == [30, 60, 120, 240, 480, 900, 900, 900]
    assert run(account="bea@example.com") == 0, "others aren't blocked"
    assert run(right=True) > 0, "nor does the right password help"


def test_a_right_password_forgives_the_account_and_not_the_address(run):
    for _ in range(3):
        assert [run(per_address=14) for _ in range(4)] == [0] * 4
        assert run(right=True, per_address=14) == 0
    assert [run(account=f"n{n}@example.com", per_address=14) > 0 for n in range(3)] == [False, False, True]
    assert run(address="198.51.100.1", per_address=14) == 0


def test_a_redis_that_forgot_the_scripts_is_told_them_again(redis_server, store):
    async def try_twice() -> None:
        counting = Counting(AsyncRedis.from_url(redis_server.url))
        assert await counting.run("return ARGV[1]", [], ["first"]) == b"first"
        store.script_flush()
        assert await counting.run("return ARGV[1]", [], ["second"]) == b"second"
        await counting.close()

    asyncio.run(try_twice())


def test_what_is_long_ago_is_forgotten(run, store):
    for _ in range(5):
        run()
    forget_blocks(store, by_s=30 + throttle.WINDOW_S + 1)
    assert [run() for _ in range(5)] == [0] * 5
    assert run() == 30
    assert all(
        0 < store.ttl(key) <= throttle.WINDOW_S + throttle.LONGEST_BLOCK_S for key in store.scan_iter(f"{PREFIX}*")
    )


def test_nobodys_name_stands_there(run, store):
    run()
    keys = list(store.scan_iter(f"{PREFIX}*"))
    assert keys
    assert not [key for key in keys if b"ann" in key or ADDRESS.encode() in key]


def test_parallel_tries_at_two_replicas_compute_five_hashes(start_auth, store, monkeypatch):
    replicas = [start_auth(), start_auth()]
    replicas[0].client.sign_up()
    hashed = []
    for replica in replicas:
        hasher = replica.app.state.rules.logging_in._hasher

        async def verify(password, stored, real=hasher.verify):
            hashed.append(password)
            return await real(password, stored)

        monkeypatch.setattr(hasher, "verify", verify)
    with ThreadPoolExecutor(50) as threads:
        tries = threads.map(lambda n: replicas[n % 2].client.log_in(password="wrong").status_code, range(100))
        statuses = list(tries)
    assert statuses.count(401) == len(hashed) == 5
    assert statuses.count(429) == 95


def test_a_killed_replicas_try_ends_by_itself(run, store, monkeypatch):
    monkeypatch.setattr(shared_failures, "LEASE_S", 1)
    for _ in range(4):
        run()

    async def begin_and_die():
        client = AsyncRedis.from_url(
            f"redis://:{store.connection_pool.connection_kwargs['password']}@"
            f"{store.connection_pool.connection_kwargs['host']}:"
            f"{store.connection_pool.connection_kwargs['port']}"
        )
        dying = LoginThrottle(failures_per_address=50, shared=Counting(client)).attempt("ann@example.com", ADDRESS)
        await dying.__aenter__()
        await client.aclose()

    asyncio.run(begin_and_die())
    assert run() == 0, "waited for the lease's end, and then had its turn"
    assert run() == 30


def test_without_redis_the_process_counts_alone_and_nobody_waits(start_auth):
    client = start_auth(redis_port=1).client
    client.sign_up()
    assert [client.log_in(password="wrong").status_code for _ in range(6)] == [401] * 5 + [429]


def test_a_redis_that_hangs_is_left_alone_for_a_while(tmp_path):
    with running_redis(tmp_path) as server, redis.Redis.from_url(server.url) as admin:

        async def tries() -> tuple[list[float], bool]:
            client = AsyncRedis.from_url(server.url, socket_timeout=0.05, socket_connect_timeout=0.05)
            counting = Counting(client)
            counted = LoginThrottle(failures_per_address=50, shared=counting)
            admin.execute_command("CLIENT", "PAUSE", 60_000, "ALL")
            took = []
            for _ in range(4):
                begun = time.monotonic()
                async with counted.attempt("ann@example.com", ADDRESS):
                    pass
                took.append(time.monotonic() - begun)
            await counting.close()
            return took, counting._away_until > time.monotonic()

        took, is_left_alone = asyncio.run(tries())
        assert is_left_alone
        assert max(took[1:]) < took[0], "only the first one asked"


def test_a_redis_that_comes_back_is_asked_again(run, start_auth, store, monkeypatch):
    auth = start_auth()
    auth.client.sign_up()
    counting = auth.app.state.rules.logging_in._throttle._shared._counting
    counting._away_until = time.monotonic() + 0.2
    assert auth.client.log_in(password="wrong").status_code == 401
    wait_for(lambda: time.monotonic() > counting._away_until)
    assert auth.client.log_in(password="wrong").status_code == 401
    assert list(store.scan_iter(f"{PREFIX}account*:failures"))
