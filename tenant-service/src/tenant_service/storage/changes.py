"""What gateways have to learn soon: changes in the order of their commits."""

import uuid
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, RowMapping, delete, func, insert, select

from tenant_service.central import Lock
from tenant_service.schema import changes

CHANGES_MATTER_S = 3600
"""Nobody trusts what the directory said for longer than 15 min; four times that is young enough to matter."""
CHANGES_KEPT_S = 24 * 3600


class Changes(NamedTuple):
    """Changes in the order of their commits. `reset`: the asker knows of later ones than there are."""

    rows: Sequence[RowMapping]
    last: int
    reset: bool


def record_change(connection: Connection, practice_id: uuid.UUID, kind: str) -> None:
    """Tells the gateways. The lock makes the order of numbers the order of commits, so that no poll misses one."""
    connection.execute(select(func.pg_advisory_xact_lock(Lock.CHANGES, 0)))
    connection.execute(insert(changes).values(kind=kind, practice_id=practice_id))


def changes_after(connection: Connection, after: int | None, *, limit: int) -> Changes:
    """Changes behind `after`; all that still matter without it, or when the database is older than the asker."""
    last = connection.execute(select(func.coalesce(func.max(changes.c.seq), 0))).scalar_one()
    reset = after is not None and after > last
    query = select(changes.c.seq, changes.c.kind, changes.c.practice_id).order_by(changes.c.seq).limit(limit)
    if after is None or reset:
        query = query.where(changes.c.at > func.now() - func.make_interval(0, 0, 0, 0, 0, 0, CHANGES_MATTER_S))
    else:
        query = query.where(changes.c.seq > after)
    rows = connection.execute(query.where(changes.c.seq <= last)).mappings().all()
    return Changes(rows, rows[-1]["seq"] if len(rows) == limit else last, reset)


def prune_changes(connection: Connection) -> None:
    """Deletes what is too old to matter, except the newest: its number must stay known."""
    newest = select(func.max(changes.c.seq)).scalar_subquery()
    too_old = changes.c.at < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, CHANGES_KEPT_S)
    connection.execute(delete(changes).where(too_old, changes.c.seq < newest))
