"""The two ways to Redis: one for the relay, which repeats later, one for what somebody waits for."""

import redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from auth_service.config import Settings

_REDIS_TIMEOUT_S = 2.0
_COUNTING_TIMEOUT_S = 0.05


def connect_redis(settings: Settings) -> redis.Redis:
    """A client that gives up after seconds and leaves the repeating to the relay. Connects on first use."""
    return redis.Redis(
        host=settings.redis_host,
        port=settings.redis_port,
        password=settings.redis_pass.get_secret_value() or None,
        socket_timeout=_REDIS_TIMEOUT_S,
        socket_connect_timeout=_REDIS_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


def connect_counting(settings: Settings) -> AsyncRedis:
    """A client for what somebody waits for: it gives up after a twentieth of a second. Connects on first use."""
    return AsyncRedis(
        host=settings.redis_host,
        port=settings.redis_port,
        password=settings.redis_pass.get_secret_value() or None,
        socket_timeout=_COUNTING_TIMEOUT_S,
        socket_connect_timeout=_COUNTING_TIMEOUT_S,
        retry=AsyncRetry(NoBackoff(), 0),
    )
