"""Failed log-ins counted for all replicas, in Redis: a restart forgets none, and two replicas give no more tries.

The library `limits` counts windows, but knows neither blocks that grow nor tries that are still under way. So this is
two small scripts, each for account and address together.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from auth_service.counting import Counting, key_of
from auth_service.exceptions import HashingBusyError, TooManyFailuresError, WrongCredentialsError

LEASE_S = 30
"""A try whose process was killed ends by itself after this time; none takes longer."""
_ASK_AGAIN_S = 0.05
_RETRY_AFTER_S = 5

_ENTER = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local window, lease, lease_s = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local waits = 0
for i = 0, #KEYS / 3 - 1 do
    local failures, leases, state = KEYS[3 * i + 1], KEYS[3 * i + 2], KEYS[3 * i + 3]
    local blocked = tonumber(redis.call('HGET', state, 'blocked') or '0')
    local strikes = tonumber(redis.call('HGET', state, 'strikes') or '0')
    if now < blocked then return {-1, math.ceil(blocked - now)} end
    if strikes > 0 and now > blocked + window then
        strikes = 0
        redis.call('DEL', state)
    end
    redis.call('ZREMRANGEBYSCORE', failures, '-inf', now - window)
    redis.call('ZREMRANGEBYSCORE', leases, '-inf', now)
    local left = 1
    if strikes == 0 then left = math.max(1, tonumber(ARGV[4 + i]) - redis.call('ZCARD', failures)) end
    if redis.call('ZCARD', leases) >= left then waits = 1 end
end
if waits == 1 then return {0, 0} end
for i = 0, #KEYS / 3 - 1 do
    redis.call('ZADD', KEYS[3 * i + 2], now + lease_s, lease)
    redis.call('EXPIRE', KEYS[3 * i + 2], lease_s)
end
return {1, 0}
"""
"""1: the try may begin; 0: it has to wait for those under way; -1 and seconds: blocked."""

_LEAVE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local window, lease, outcome = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local first, longest = tonumber(ARGV[4]), tonumber(ARGV[5])
for i = 0, #KEYS / 3 - 1 do
    local failures, leases, state = KEYS[3 * i + 1], KEYS[3 * i + 2], KEYS[3 * i + 3]
    local limit, forgiven = tonumber(ARGV[6 + 2 * i]), ARGV[7 + 2 * i]
    redis.call('ZREM', leases, lease)
    if outcome == 'right' and forgiven == '1' then
        redis.call('DEL', failures, state)
    elseif outcome == 'wrong' then
        local strikes = tonumber(redis.call('HGET', state, 'strikes') or '0')
        redis.call('ZADD', failures, now, lease)
        redis.call('EXPIRE', failures, window)
        if strikes > 0 or redis.call('ZCARD', failures) >= limit then
            local pause = math.min(first * 2 ^ strikes, longest)
            redis.call('HSET', state, 'blocked', now + pause, 'strikes', math.min(strikes + 1, 10))
            redis.call('EXPIRE', state, window + longest)
            redis.call('DEL', failures)
        end
    end
end
return 0
"""


@dataclass(frozen=True, slots=True)
class Counted:
    """What failures are counted of. A right try forgives those of an account, never those of an address."""

    kind: str
    key: str
    limit: int
    is_forgiven: bool

    @property
    def keys(self) -> list[str]:
        """Where it stands in Redis."""
        return [f"{key_of(self.kind, self.key)}:{part}" for part in ("failures", "leases", "state")]


class SharedFailures:
    """Tries in Redis. Without an answer from there every try is let through."""

    def __init__(self, counting: Counting, *, window_s: float, first_block_s: float, longest_block_s: float) -> None:
        self._counting = counting
        self._window_s = int(window_s)
        self._blocks_s = (int(first_block_s), int(longest_block_s))

    @asynccontextmanager
    async def attempt(self, counted: Sequence[Counted], *, wait_s: float) -> AsyncIterator[None]:
        """One try, after at most `wait_s` for those before. Raises TooManyFailuresError, HashingBusyError."""
        keys = [key for one in counted for key in one.keys]
        lease = secrets.token_hex(8)
        await self._enter(keys, [one.limit for one in counted], lease, wait_s)
        outcome = "left"
        try:
            yield
            outcome = "right"
        except WrongCredentialsError:
            outcome = "wrong"
            raise
        finally:
            ends = [end for one in counted for end in (one.limit, int(one.is_forgiven))]
            await self._counting.run(_LEAVE, keys, [self._window_s, lease, outcome, *self._blocks_s, *ends])

    async def _enter(self, keys: list[str], limits: list[int], lease: str, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while True:
            answer = await self._counting.run(_ENTER, keys, [self._window_s, lease, LEASE_S, *limits])
            if answer is None or answer[0] == 1:
                return
            if answer[0] < 0:
                raise TooManyFailuresError(retry_after_s=max(1, int(answer[1])))
            if time.monotonic() > deadline:
                raise HashingBusyError(retry_after_s=_RETRY_AFTER_S)
            await asyncio.sleep(_ASK_AGAIN_S)
