"""Everything the notifier remembers, all of it in Redis: what became of an event, who is at it, and dead letters.

Losing it loses no mail: what has no receipt is published again from the outbox.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import LockError
from redis.retry import Retry

from notifier.exceptions import SendingElsewhereError
from shared.events import DEAD, DELIVERED, STREAM, Outcome

Fields = Mapping[bytes, bytes]

DEAD_LETTERS = "gowebbo:dead"
MAX_DEAD_LETTERS = 10_000
REMEMBERED_S = 7 * 24 * 3600
"""Longer than the outbox waits between two publications (24 h at most)."""

_PREFIX = "gowebbo:mail:"
_COUNTS = f"{_PREFIX}counts"
_REASON, _AT = b"dead_reason", b"dead_at"
_SOCKET_TIMEOUT_S = 3  # longer than the consumer's BLOCK, or every quiet read would fail
_CONNECT_TIMEOUT_S = 1
_RETRIES = 2


def connect(url: str) -> Redis:
    """A client that gives up after some seconds. Connects on first use."""
    return Redis.from_url(
        url,
        socket_timeout=_SOCKET_TIMEOUT_S,
        socket_connect_timeout=_CONNECT_TIMEOUT_S,
        socket_keepalive=True,
        health_check_interval=15,
        retry=Retry(ExponentialWithJitterBackoff(base=0.1, cap=1), _RETRIES),
    )


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that became no mail. `id` is its entry in the dead-letter stream."""

    id: str
    reason: str
    at: str
    fields: Fields


class MailRecord:
    """What became of each event."""

    def __init__(self, redis: Redis, *, lock_s: int) -> None:
        self._redis = redis
        self._lock_s = lock_s

    @contextmanager
    def at_work_on(self, event_id: str) -> Iterator[None]:
        """Holds the event for this worker. Raises SendingElsewhereError; ends by itself if this worker is killed."""
        lock = self._redis.lock(f"{_PREFIX}sending:{event_id}", timeout=self._lock_s, blocking=False)
        if not lock.acquire():
            raise SendingElsewhereError("another worker is at this event")
        try:
            yield
        finally:
            with suppress(LockError):  # it ran out: whoever has it now keeps it
                lock.release()

    def outcome(self, event_id: str) -> Outcome | None:
        """What became of the event, as far as is remembered."""
        sent, dead = self._redis.mget(f"{_PREFIX}sent:{event_id}", f"{_PREFIX}dead:{event_id}")
        return DELIVERED if sent else DEAD if dead else None

    def note_sent(self, event_id: str) -> None:
        """To be called right after the mail server took the mail: from here on no copy of the event sends another."""
        pipe = self._redis.pipeline()
        pipe.set(f"{_PREFIX}sent:{event_id}", b"1", ex=REMEMBERED_S)
        pipe.hincrby(_COUNTS, DELIVERED, 1)
        pipe.execute()

    def bury(self, fields: Fields, *, event_id: str | None, reason: str) -> None:
        """Keeps a stream entry that becomes no mail, with the reason. `event_id` is None for what is no event."""
        pipe = self._redis.pipeline()
        if event_id is not None:
            pipe.set(f"{_PREFIX}dead:{event_id}", b"1", ex=REMEMBERED_S)
        letter: dict[Any, Any] = {**fields, _REASON: reason.encode(), _AT: datetime.now(UTC).isoformat().encode()}
        pipe.xadd(DEAD_LETTERS, letter, maxlen=MAX_DEAD_LETTERS, approximate=True)
        pipe.hincrby(_COUNTS, DEAD, 1)
        pipe.execute()

    def counts(self) -> dict[str, int]:
        """Mails by outcome since this Redis began."""
        counts: Any = self._redis.hgetall(_COUNTS)
        return {name.decode(): int(count) for name, count in counts.items()}

    def dead_letters(self) -> list[DeadLetter]:
        """The dead letters, oldest first."""
        entries: Any = self._redis.xrange(DEAD_LETTERS)
        return [_dead_letter(entry_id.decode(), fields) for entry_id, fields in entries]

    def replay(self, letter: DeadLetter, *, event_id: str | None) -> None:
        """Puts a dead letter back on the stream, as if it had just been published."""
        fields: dict[Any, Any] = dict(letter.fields)
        pipe = self._redis.pipeline()
        pipe.xadd(STREAM, fields)
        pipe.xdel(DEAD_LETTERS, letter.id)
        if event_id is not None:
            pipe.delete(f"{_PREFIX}dead:{event_id}")
        pipe.execute()


def _dead_letter(entry_id: str, fields: dict[bytes, bytes]) -> DeadLetter:
    reason, at = fields.pop(_REASON, b""), fields.pop(_AT, b"")
    return DeadLetter(id=entry_id, reason=reason.decode(), at=at.decode(), fields=fields)
