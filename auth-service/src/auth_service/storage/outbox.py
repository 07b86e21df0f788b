"""Events that must reach the stream. Claimed by their state, never by `id > last`."""

from collections.abc import Sequence
from datetime import UTC
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, case, delete, func, insert, select, update

from auth_service.schema import interval, outbox
from shared.events import DELIVERED, Event

FIRST_PAUSE_S = 15
LONGEST_PAUSE_S = 72_000
"""With its jitter of up to a fifth this is 24 h."""
_DOUBLINGS = 13
"""More of them would pass the longest pause anyway, and one day the range of numbers."""

_INSERT = insert(outbox)


def add_event(connection: Connection, event: Event) -> None:
    """Remembers an event in the transaction that makes it true."""
    connection.execute(
        _INSERT,
        {
            "event": UUID(event.id),
            "type": event.type,
            "practice_id": UUID(event.practice_id),
            "request_id": event.request_id,
            "payload": event.payload,
        },
    )


def claim_due(connection: Connection, *, limit: int) -> list[Event]:
    """Events due for publication, locked; those that another relay holds are left out."""
    rows = connection.execute(
        select(
            outbox.c.event,
            outbox.c.type,
            outbox.c.practice_id,
            outbox.c.created_at,
            outbox.c.request_id,
            outbox.c.payload,
        )
        .where(outbox.c.receipted_at.is_(None), outbox.c.next_publish_at <= func.now())
        .order_by(outbox.c.next_publish_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [_event(row) for row in rows]


def mark_published(connection: Connection, events: Sequence[Event]) -> None:
    """The next publication follows after 15 s, 30 s, 1 min … 24 h, unless a receipt comes first."""
    doubled = FIRST_PAUSE_S * func.power(2, func.least(outbox.c.publish_count, _DOUBLINGS))
    pause_s = func.least(LONGEST_PAUSE_S, doubled) * (1 + func.random() * 0.2)
    connection.execute(
        update(outbox)
        .where(outbox.c.event.in_([UUID(event.id) for event in events]))
        .values(
            published_at=func.now(),
            publish_count=outbox.c.publish_count + 1,
            next_publish_at=func.now() + interval(pause_s),
        )
    )


def note_receipt(connection: Connection, event_id: UUID, *, outcome: str, detail: str) -> bool:
    """Whether the event is known. A delivery is final; what was given up may still be delivered by a replay.

    A token that the mail had is forgotten: it stands in the mail now, or in the dead letter.
    """
    is_final = outbox.c.outcome == DELIVERED
    known = connection.execute(
        update(outbox)
        .where(outbox.c.event == event_id)
        .values(
            receipted_at=case((is_final, outbox.c.receipted_at), else_=func.now()),
            outcome=case((is_final, outbox.c.outcome), else_=outcome),
            detail=case((is_final, outbox.c.detail), else_=detail),
            payload=outbox.c.payload.op("-")("token"),
        )
    )
    return known.rowcount == 1


def prune_outbox(connection: Connection, *, delivered_for_s: int) -> int:
    """Deletes events that were delivered long ago; how many. What was given up stays for a replay."""
    old = outbox.c.receipted_at < func.now() - interval(delivered_for_s)
    return connection.execute(delete(outbox).where(outbox.c.outcome == DELIVERED, old)).rowcount


def _event(row: Row[*tuple[Any, ...]]) -> Event:
    return Event(
        id=str(row.event),
        type=row.type,
        practice_id=str(row.practice_id),
        occurred_at=row.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        request_id=row.request_id,
        payload=row.payload,
    )
