"""Second factors and recovery codes in their tables."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from auth_service.schema import recovery_codes, second_factors, sessions
from auth_service.tokens import digest_of

TOTP = "totp"


@dataclass(frozen=True, slots=True)
class Factor:
    """A second factor; `secret` is sealed."""

    id: UUID
    person_id: UUID
    secret: str
    is_confirmed: bool


_FIND = select(
    second_factors.c.id,
    second_factors.c.person_id,
    second_factors.c.secret,
    second_factors.c.confirmed_at.is_not(None),
)


def find_factor(connection: Connection, person_id: UUID, kind: str = TOTP) -> Factor | None:
    """The person's factor of this kind, confirmed or not."""
    row = connection.execute(
        _FIND.where(second_factors.c.person_id == person_id, second_factors.c.kind == kind)
    ).first()
    return Factor(*row) if row else None


def list_factors(connection: Connection, *, after: UUID | None, limit: int) -> list[Factor]:
    """Everybody's, in the order of their ids."""
    query = _FIND.order_by(second_factors.c.id).limit(limit)
    if after is not None:
        query = query.where(second_factors.c.id > after)
    return [Factor(*row) for row in connection.execute(query)]


def replace_secret(connection: Connection, factor_id: UUID, *, old: str, new: str) -> None:
    """Stores the secret sealed anew, unless it was changed meanwhile."""
    connection.execute(
        update(second_factors)
        .where(second_factors.c.id == factor_id, second_factors.c.secret == old)
        .values(secret=new)
    )


def insert_factor(connection: Connection, factor: Factor, kind: str = TOTP) -> None:
    """A new factor that waits to be confirmed."""
    connection.execute(
        insert(second_factors).values(id=factor.id, person_id=factor.person_id, kind=kind, secret=factor.secret)
    )


def confirm_factor(connection: Connection, factor_id: UUID) -> None:
    """From now on log-in asks for it."""
    connection.execute(update(second_factors).where(second_factors.c.id == factor_id).values(confirmed_at=func.now()))


def delete_factors(connection: Connection, person_id: UUID, kind: str = TOTP) -> None:
    """The person's factor of this kind is gone."""
    connection.execute(
        delete(second_factors).where(second_factors.c.person_id == person_id, second_factors.c.kind == kind)
    )


def take_step(connection: Connection, factor_id: UUID, step: int) -> bool:
    """Notes the time step of a right code; false when it, or a later one, was taken before."""
    older = or_(second_factors.c.last_step.is_(None), second_factors.c.last_step < step)
    taken = connection.execute(
        update(second_factors)
        .where(second_factors.c.id == factor_id, older)
        .values(last_step=step, last_used_at=func.now())
    )
    return taken.rowcount == 1


def replace_recovery_codes(connection: Connection, person_id: UUID, codes: Iterable[str]) -> None:
    """These are the person's recovery codes from now on."""
    connection.execute(delete(recovery_codes).where(recovery_codes.c.person_id == person_id))
    rows = [{"person_id": person_id, "digest": digest_of(code)} for code in codes]
    if rows:
        connection.execute(insert(recovery_codes), rows)


def take_recovery_code(connection: Connection, person_id: UUID, code: str) -> bool:
    """Whether it is one of the person's that wasn't used; it is used now."""
    taken = connection.execute(
        update(recovery_codes)
        .where(
            recovery_codes.c.person_id == person_id,
            recovery_codes.c.digest == digest_of(code),
            recovery_codes.c.used_at.is_(None),
        )
        .values(used_at=func.now())
    )
    return taken.rowcount == 1


def count_recovery_codes(connection: Connection, person_id: UUID) -> int:
    """How many are left."""
    unused = (recovery_codes.c.person_id == person_id, recovery_codes.c.used_at.is_(None))
    return connection.scalar(select(func.count()).select_from(recovery_codes).where(*unused)) or 0


def forget_in_sessions(connection: Connection, person_id: UUID) -> list[tuple[UUID, UUID]]:
    """No session of the person has shown a second factor any more. Those that had, each with its practice."""
    changed = connection.execute(
        update(sessions)
        .where(
            sessions.c.person_id == person_id,
            sessions.c.second_factor_at.is_not(None),
            sessions.c.revoked_at.is_(None),
        )
        .values(second_factor_at=None)
        .returning(sessions.c.id, sessions.c.practice_id)
    )
    return [(row.id, row.practice_id) for row in changed]
