"""Stream to queue: an entry is acknowledged when its task is queued, and leaves the stream then.

Nothing here knows mails. Whatever goes wrong, the entry stays pending and is taken up again.
"""

import os
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from notifier.storage import Fields, MailRecord
from shared.events import GROUP, STREAM, Event, EventError
from shared.logs import describe_fault, get_logger

MAX_DELIVERIES = 5
BATCH = 20
BLOCK_MS = 1000
"""A quiet read ends after this time, so that the process stops promptly; far below the client's socket timeout."""
MAX_PAUSE_S = 5.0
FORGET_CONSUMERS_AFTER_S = 3600
"""A consumer's name is new at each start; names without pending entries are dropped after this time."""

_log = get_logger()


class Consumer:
    """One member of the consumer group."""

    def __init__(
        self,
        redis: Redis,
        queue: Callable[[Event], None],
        *,
        record: MailRecord,
        reclaim_after_s: int,
    ) -> None:
        self._redis = redis
        self._queue = queue
        self._record = record
        self._reclaim_after_ms = reclaim_after_s * 1000
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.queued = 0
        self.dead = 0
        self.failures = 0

    def run(self, stop: threading.Event) -> None:
        """Works until `stop` is set. No fault ends it: it pauses and begins anew."""
        pause_s = 0.0
        while not stop.wait(pause_s):
            try:
                self._join_group()
                pause_s = 0.0
                while not stop.is_set():
                    self.take()
            except (RedisError, OperationalError) as fault:
                pause_s = min(MAX_PAUSE_S, pause_s * 2 or 0.25)
                self._note_failure("redis_unavailable", fault, pause_s)
            except Exception as fault:  # noqa: BLE001 - the entry stays pending; after MAX_DELIVERIES it is a dead letter
                pause_s = min(MAX_PAUSE_S, pause_s * 2 or 0.25)
                self._note_failure("event_not_queued", fault, pause_s)
        self._leave_group()

    def take(self) -> None:
        """One turn: first one entry that a dead consumer left, then the new ones; waits BLOCK_MS for them.

        Left entries are taken one at a time, so that one which kills its consumer doesn't drag others along.
        """
        left = self._claim()
        for entry_id, fields in left:
            self._handle(entry_id, fields, deliveries=self._deliveries(entry_id))
        read: Any = self._redis.xreadgroup(
            GROUP, self._name, {STREAM: ">"}, count=BATCH, block=None if left else BLOCK_MS
        )
        for _, entries in read or ():
            for entry_id, fields in entries:
                self._handle(entry_id, fields, deliveries=1)

    def _join_group(self) -> None:
        """Also after a flush of Redis; from the stream's beginning, so that nothing is passed over."""
        try:
            self._redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except ResponseError as fault:
            if "BUSYGROUP" not in str(fault):
                raise
        infos: Any = self._redis.xinfo_consumers(STREAM, GROUP)
        for info in infos:
            if info["pending"] == 0 and info["idle"] > FORGET_CONSUMERS_AFTER_S * 1000:
                self._redis.xgroup_delconsumer(STREAM, GROUP, info["name"])

    def _leave_group(self) -> None:
        """Drops this name, unless entries are pending under it: with the name Redis would forget them."""
        with suppress(RedisError):
            pending: Any = self._redis.xpending_range(STREAM, GROUP, "-", "+", 1, self._name)
            if not pending:
                self._redis.xgroup_delconsumer(STREAM, GROUP, self._name)

    def _claim(self) -> list[tuple[bytes, Fields]]:
        answer: Any = self._redis.xautoclaim(
            STREAM, GROUP, self._name, min_idle_time=self._reclaim_after_ms, start_id="0-0", count=1
        )
        return [(entry_id, fields) for entry_id, fields in answer[1] if fields is not None]

    def _deliveries(self, entry_id: bytes) -> int:
        pending: Any = self._redis.xpending_range(STREAM, GROUP, entry_id, entry_id, 1)
        return int(pending[0]["times_delivered"]) if pending else 1

    def _handle(self, entry_id: bytes, fields: Fields, *, deliveries: int) -> None:
        try:
            event = Event.from_fields(fields)
        except EventError:
            self._bury(entry_id, fields, event_id=None, reason="not an event")
            return
        if deliveries > MAX_DELIVERIES:
            # buried first, then queued all the same: the worker finds it dead and only sends the receipt
            self._bury(entry_id, fields, event_id=event.id, reason=f"delivered {deliveries} times without success")
        self._queue(event)
        self._acknowledge(entry_id)
        self.queued += 1

    def _bury(self, entry_id: bytes, fields: Fields, *, event_id: str | None, reason: str) -> None:
        self._record.bury(fields, event_id=event_id, reason=reason)
        self._acknowledge(entry_id)
        self.dead += 1
        _log.error("event_dead", entry_id=entry_id.decode(), event_id=event_id, reason=reason)

    def _acknowledge(self, entry_id: bytes) -> None:
        """Also deletes the entry: mails' addresses and tokens lie nowhere longer than they have to."""
        pipe = self._redis.pipeline()
        pipe.xack(STREAM, GROUP, entry_id)
        pipe.xdel(STREAM, entry_id)
        pipe.execute()

    def _note_failure(self, name: str, fault: Exception, pause_s: float) -> None:
        self.failures += 1
        _log.warning(name, pause_s=pause_s, **describe_fault(fault))
