"""Events on the Redis stream between auth-service's relay and the notifier."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import orjson

STREAM = "gowebbo:events"
GROUP = "notifier"
MAX_STREAM_ENTRIES = 100_000
"""The stream is trimmed to about this length; what falls out is published again from the outbox."""
_FIELD = b"event"

PRACTICE_REGISTERED = "practice.registered"
"""A practice became active. Payload: `name`, `email` and, to verify the address, `token`."""
EMAIL_UNVERIFIED = "email.unverified"
"""Somebody has to show that an address is theirs. Payload: `name`, `email`, `token`."""
PASSWORD_FORGOTTEN = "password.forgotten"  # noqa: S105 - an event's name
"""Somebody asked for a new password. Payload: `name`, `email`, `token`."""
PASSWORD_CHANGED = "password.changed"  # noqa: S105 - an event's name
"""A person has another password. Payload: `name`, `email`, `at` (in UTC, to be read), `address`."""
DEVICE_SEEN = "device.seen"
"""A person used a device for the first time. Payload: `name`, `email`, `at` (as above), `address`, `device`."""
STAFF_INVITED = "staff.invited"
"""Somebody may join a practice. Payload: `email`, `practice` (its name), `inviter` (a name), `role`, `token`."""


Outcome = Literal["delivered", "dead"]
"""What a receipt says: the mail was taken, or will never be. A dead one may still be delivered by a replay."""
DELIVERED: Outcome = "delivered"
DEAD: Outcome = "dead"


class EventError(ValueError):
    """A stream entry that is no event."""


@dataclass(frozen=True, slots=True)
class Event:
    """A fact that happened. `id` stays the same however often it is published."""

    id: str
    type: str
    practice_id: str
    occurred_at: str
    request_id: str = ""
    payload: dict[str, Any] = field(default_factory=dict)

    def to_fields(self) -> dict[str, bytes]:
        """The stream entry's fields."""
        return {_FIELD.decode(): orjson.dumps(asdict(self))}

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Reads a stream entry. Raises EventError."""
        try:
            return cls.from_dict(orjson.loads(fields[_FIELD]))
        except (KeyError, orjson.JSONDecodeError) as fault:
            raise EventError("not an event") from fault

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Reads a decoded event, as a task carries it. Raises EventError."""
        try:
            event = cls(**data)
        except TypeError as fault:
            raise EventError("not an event") from fault
        texts = (event.id, event.type, event.practice_id, event.occurred_at, event.request_id)
        if not (all(isinstance(text, str) for text in texts) and isinstance(event.payload, dict)):
            raise EventError("not an event")
        return event
