"""What people are told by mail: an event in the outbox, written in the transaction that makes it true."""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection

from auth_service.origin import Origin
from auth_service.storage import outbox
from shared.events import Event
from shared.ids import new_id


def announce(connection: Connection, event_type: str, origin: Origin, *, practice_id: UUID, **payload: str) -> None:
    """Adds an event of `shared.events` with its payload. The relay publishes it within a second or so."""
    event = Event(
        id=str(new_id()),
        type=event_type,
        practice_id=str(practice_id),
        occurred_at=datetime.now(UTC).isoformat(),
        request_id=origin.request_id,
        payload=dict(payload),
    )
    outbox.add_event(connection, event)


def readable(at: datetime) -> str:
    """A moment as mails tell it."""
    return f"{at:%Y-%m-%d %H:%M} UTC"
