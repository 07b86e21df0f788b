"""The last move of each practice, and how far it is."""

import uuid
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert

from tenant_service.schema import moves


class MovePhase(StrEnum):
    """`copying` → `fenced` → `switched`; both of the former → `rolled-back`."""

    COPYING = "copying"
    FENCED = "fenced"
    SWITCHED = "switched"
    ROLLED_BACK = "rolled-back"


class Move(NamedTuple):
    """A move; `rows` and `fence_ms` are known once it has switched."""

    practice_id: uuid.UUID
    database: str
    from_server: str
    to_server: str
    phase: MovePhase
    rows: int | None = None
    fence_ms: int | None = None
    error: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether it began and neither switched nor was rolled back: what it left has to be undone."""
        return self.phase in {MovePhase.COPYING, MovePhase.FENCED}


_MOVE = tuple(moves.c[name] for name in Move._fields)


def find_move(connection: Connection, practice_id: uuid.UUID) -> Move | None:
    """The practice's last move."""
    row = connection.execute(select(*_MOVE).where(moves.c.practice_id == practice_id)).one_or_none()
    return Move(*row)._replace(phase=MovePhase(row.phase)) if row else None


def switched_from(connection: Connection, server: str) -> list[uuid.UUID]:
    """Practices whose last move led away from this server."""
    query = select(moves.c.practice_id).where(moves.c.from_server == server, moves.c.phase == MovePhase.SWITCHED)
    return list(connection.scalars(query))


def begin_move(connection: Connection, move: Move) -> None:
    """Notes that a move begins, in place of the practice's last one."""
    values = move._asdict() | {"begun_at": func.now(), "updated_at": func.now()}
    statement = insert(moves).values(**values)
    connection.execute(statement.on_conflict_do_update(index_elements=["practice_id"], set_=values))


def note_phase(connection: Connection, practice_id: uuid.UUID, phase: MovePhase, **values: Any) -> None:
    """Notes how far the practice's move is."""
    connection.execute(
        update(moves).where(moves.c.practice_id == practice_id).values(phase=phase, updated_at=func.now(), **values)
    )
