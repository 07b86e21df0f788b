"""Counters in Redis, for all replicas: small scripts, each one round trip, by Redis' own clock.

While Redis can't be asked nobody waits for it: whoever counts here counts in its own process too, as strictly.
"""

import time
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from shared.logs import get_logger

PREFIX = "gowebbo:{throttle}:"
"""With one hash tag, so that a cluster keeps together what one script reads."""
LEFT_ALONE_S = 5.0
"""A Redis that failed is asked again after this time."""

_log = get_logger()


def key_of(kind: str, name: str) -> str:
    """Where something is counted: no e-mail and no address stands in Redis."""
    return f"{PREFIX}{kind}:{sha256(name.encode()).hexdigest()[:32]}"


class Counting:
    """Runs scripts in Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._scripts: dict[str, AsyncScript] = {}
        self._away_until = 0.0

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[object]) -> Any:
        """What the script returns; None when Redis couldn't be asked, or failed a moment ago.

        Redis is told the script once, and its digest from then on.
        """
        if time.monotonic() < self._away_until:
            return None
        try:
            known = self._scripts.get(script) or self._scripts.setdefault(script, self._redis.register_script(script))
            return await known(keys, list(map(str, arguments)))
        except (RedisError, OSError, TimeoutError) as fault:
            self._away_until = time.monotonic() + LEFT_ALONE_S
            _log.warning("shared_counters_unavailable", fault=type(fault).__qualname__)
            return None

    async def close(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()
