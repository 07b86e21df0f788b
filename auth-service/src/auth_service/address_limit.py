"""How often one address may ask for what is dear: sign-ups, which cost a database, and mails.

Counted in the memory of this process, and in Redis for all replicas; the stricter of both decides.
"""

import math
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from auth_service.counting import Counting, key_of
from auth_service.exceptions import TooManyCallsError
from shared.addresses import limited_as

WINDOW_S = 3600
MAX_ADDRESSES = 50_000
"""The one unseen for the longest time is forgotten first."""

_ADMIT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local window, limit, call = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
if redis.call('ZCARD', KEYS[1]) >= limit then
    local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
    return math.max(1, math.ceil(first + window - now))
end
redis.call('ZADD', KEYS[1], now, call)
redis.call('EXPIRE', KEYS[1], window)
return 0
"""
"""0: the call is counted and may begin; else the seconds until one may."""


class AddressLimit:
    """Counts by address, over an hour. `per_address` is 0 where nothing is limited."""

    def __init__(
        self,
        kind: str,
        *,
        per_address: int,
        shared: Counting | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`kind` names what is counted. Without `shared` this process counts alone."""
        self._kind = kind
        self._per_address = per_address
        self._shared = shared
        self._clock = clock
        self._begun: OrderedDict[str, deque[float]] = OrderedDict()

    async def admit(self, address: str) -> None:
        """Lets a call begin. Raises TooManyCallsError."""
        if not self._per_address:
            return
        source = limited_as(address)
        if self._shared:
            key, call = key_of(self._kind, source), secrets.token_hex(8)
            wait_s = await self._shared.run(_ADMIT, [key], [WINDOW_S, self._per_address, call])
            if wait_s:
                raise TooManyCallsError(retry_after_s=wait_s)
        self._admit_here(source)

    def _admit_here(self, source: str) -> None:
        now = self._clock()
        begun = self._begun.setdefault(source, deque())
        self._begun.move_to_end(source)
        while begun and begun[0] <= now - WINDOW_S:
            begun.popleft()
        if len(begun) >= self._per_address:
            raise TooManyCallsError(retry_after_s=max(1, math.ceil(begun[0] + WINDOW_S - now)))
        begun.append(now)
        if len(self._begun) > MAX_ADDRESSES:
            self._begun.popitem(last=False)
