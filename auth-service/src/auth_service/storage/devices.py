"""Devices that a person has logged in from, known by what they say of themselves."""

from hashlib import sha256
from uuid import UUID

from sqlalchemy import Connection, bindparam, delete, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningInsert

from auth_service.schema import interval, known_devices

_SEE: ReturningInsert[tuple[bool]] = (
    insert(known_devices)
    .values(person_id=bindparam("person"), device=bindparam("device_"))
    .on_conflict_do_update(
        index_elements=[known_devices.c.person_id, known_devices.c.device], set_={"last_seen_at": func.now()}
    )
    .returning(literal_column("xmax = 0"))
)


def see_device(connection: Connection, person_id: UUID, user_agent: str) -> bool:
    """Notes the device; whether it is a new one of somebody who has used others before."""
    device = sha256(user_agent.encode()).digest()
    if not connection.scalar(_SEE, {"person": person_id, "device_": device}):
        return False
    others = select(known_devices.c.device).where(
        known_devices.c.person_id == person_id, known_devices.c.device != device
    )
    return connection.scalar(select(others.exists())) or False


def prune_devices(connection: Connection, *, unseen_for_s: int) -> int:
    """Forgets devices that weren't used for long; how many."""
    return connection.execute(
        delete(known_devices).where(known_devices.c.last_seen_at < func.now() - interval(unseen_for_s))
    ).rowcount
