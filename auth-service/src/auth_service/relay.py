"""From the outbox to the Redis stream, at least once. Redis may be down, slow or emptied: rows wait or go again."""

from typing import Any

import redis

from auth_service.database import Database
from auth_service.storage import outbox
from shared.events import MAX_STREAM_ENTRIES, STREAM
from shared.logs import get_logger

POLL_S = 1.0
BATCH = 100
_log = get_logger()


class Relay:
    """Publishes what is due. Several replicas share the work: each skips what another has locked."""

    def __init__(self, database: Database, redis_client: redis.Redis) -> None:
        self._database = database
        self._redis = redis_client
        self._is_blocked = False

    async def publish(self) -> None:
        """Publishes until nothing is due. Raises UnavailableError; Redis being away is only noted."""
        try:
            while await self._database.run(self.publish_batch) == BATCH:
                pass
        except redis.RedisError as fault:
            if not self._is_blocked:
                _log.warning("relay_blocked", fault=type(fault).__qualname__)
            self._is_blocked = True
            return
        if self._is_blocked:
            _log.warning("relay_resumed")
        self._is_blocked = False

    def publish_batch(self) -> int:
        """How many events went out. Raises RedisError: then all of them stay due, some may have gone out."""
        with self._database.engine.begin() as connection:
            due = outbox.claim_due(connection, limit=BATCH)
            if due:
                with self._redis.pipeline(transaction=False) as pipeline:
                    for event in due:
                        entry: dict[Any, Any] = event.to_fields()  # the driver's own type is wider and invariant
                        pipeline.xadd(STREAM, entry, maxlen=MAX_STREAM_ENTRIES, approximate=True)
                    pipeline.execute()
                outbox.mark_published(connection, due)
        return len(due)
