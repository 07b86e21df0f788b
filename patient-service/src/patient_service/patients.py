"""The rules about patients: what is found, what an empty change means, where a page ends. Each is one statement."""

from typing import NamedTuple
from uuid import UUID

from patient_service import storage
from patient_service.exceptions import PatientNotFoundError
from patient_service.models import PatientBody, PatientChanges
from patient_service.storage import Json, ShardSession
from shared.cursor import decode_cursor, encode_cursor
from shared.errors import MalformedCursorError
from shared.ids import new_id

_BEFORE_ALL = str(UUID(int=0))


class Page(NamedTuple):
    """Patients with commas between, and the cursor behind them if there are more."""

    patients: Json
    next_cursor: str | None


async def list_patients(session: ShardSession, *, limit: int, cursor: str | None) -> Page:
    """The active patients behind the cursor, oldest first. Raises MalformedCursorError."""
    rows, last_id = await storage.list_active(session, after=_position(cursor), limit=limit)
    return Page(rows, encode_cursor(last_id) if last_id else None)


async def add_patient(session: ShardSession, body: PatientBody) -> Json:
    """A new patient."""
    return await storage.insert_patient(session, new_id(), name=body.name, age=body.age, mobile=body.mobile)


async def read_patient(session: ShardSession, patient_id: UUID) -> Json:
    """An active patient. Raises PatientNotFoundError."""
    return _found(await storage.read_active(session, patient_id))


async def replace_patient(session: ShardSession, patient_id: UUID, body: PatientBody) -> Json:
    """The patient after PUT. Raises PatientNotFoundError."""
    return _found(await storage.replace_active(session, patient_id, name=body.name, age=body.age, mobile=body.mobile))


async def change_patient(session: ShardSession, patient_id: UUID, changes: PatientChanges) -> Json:
    """The patient after PATCH; no change leaves version and time as they are. Raises PatientNotFoundError."""
    if not changes.model_fields_set:
        return await read_patient(session, patient_id)
    return _found(
        await storage.change_active(session, patient_id, name=changes.name, age=changes.age, mobile=changes.mobile)
    )


async def delete_patient(session: ShardSession, patient_id: UUID) -> None:
    """Deletes an active patient softly. Raises PatientNotFoundError."""
    if not await storage.delete_active(session, patient_id):
        raise PatientNotFoundError


async def restore_patient(session: ShardSession, patient_id: UUID) -> Json:
    """The patient, active again. Raises PatientNotFoundError."""
    return _found(await storage.restore_any(session, patient_id))


def _found(patient: Json | None) -> Json:
    if patient is None:
        raise PatientNotFoundError
    return patient


def _position(cursor: str | None) -> str:
    if cursor is None:
        return _BEFORE_ALL
    (text,) = decode_cursor(cursor, parts=1)
    try:
        return str(UUID(text))
    except ValueError as fault:
        raise MalformedCursorError from fault
