"""The door: a request goes to a rule, its bytes come back in the envelope. No SQL and no decision here."""

from typing import Any

from fastapi import APIRouter, Response

from patient_service import patients
from patient_service.dependencies import PatientId, ShardToDelete, ShardToRead, ShardToWrite
from patient_service.models import (
    DoneAnswer,
    PatientAnswer,
    PatientBody,
    PatientChanges,
    PatientPageAnswer,
)
from patient_service.storage import Json
from shared.cursor import DEFAULT_LIMIT, CursorText, Limit
from shared.envelope import success
from shared.models import problems

PATH = "/api/v1/patients"


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return problems(401, 403, 422, 503, 504, *statuses)


router = APIRouter(prefix=PATH, tags=["patients"])


class _Envelope(Response):
    """`shared.envelope.success` for a result that is JSON already. Sets its headers itself: Starlette takes 3 µs."""

    def __init__(self, message: str, *result: Json, status: int = 200) -> None:
        """`result` may come in pieces: a large page is copied once."""
        head = b'{"success":true,"status":%d,"message":"%b","result":' % (status, message.encode())
        self.status_code = status
        self.body = b"".join((head, *result, b"}"))
        self.background = None
        self.raw_headers = [(b"content-length", b"%d" % len(self.body)), (b"content-type", b"application/json")]


@router.get(
    "",
    summary="List patients",
    description="Active patients, oldest first.",
    responses={200: {"model": PatientPageAnswer}, **_errors(400)},
)
async def list_patients(shard: ShardToRead, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Response:
    """A page of the list."""
    page = await patients.list_patients(shard, limit=limit, cursor=cursor)
    if page.next_cursor is None:
        return _Envelope("Patients fetched successfully!", b'{"data":[', page.patients, b"]}")
    behind = b'],"next_cursor":"%b"}' % page.next_cursor.encode()
    answer = _Envelope("Patients fetched successfully!", b'{"data":[', page.patients, behind)
    following = f'<{PATH}?limit={limit}&cursor={page.next_cursor}>; rel="next"'
    answer.raw_headers.append((b"link", following.encode()))
    return answer


@router.post(
    "",
    summary="Add a patient",
    status_code=201,
    responses={201: {"model": PatientAnswer}, **_errors(400, 415)},
)
async def add_patient(shard: ShardToWrite, body: PatientBody) -> Response:
    """A new patient."""
    return _Envelope("Patient added successfully!", await patients.add_patient(shard, body), status=201)


@router.get(
    "/{patient_id}",
    summary="Read a patient",
    responses={200: {"model": PatientAnswer}, **_errors(404)},
)
async def read_patient(shard: ShardToRead, patient_id: PatientId) -> Response:
    """One patient."""
    return _Envelope("Patient fetched successfully!", await patients.read_patient(shard, patient_id))


@router.put(
    "/{patient_id}",
    summary="Replace a patient",
    responses={200: {"model": PatientAnswer}, **_errors(400, 404, 415)},
)
async def replace_patient(shard: ShardToWrite, patient_id: PatientId, body: PatientBody) -> Response:
    """Name, age and mobile anew."""
    return _Envelope("Patient updated successfully!", await patients.replace_patient(shard, patient_id, body))


@router.patch(
    "/{patient_id}",
    summary="Change a patient",
    description="Changes the members that are sent (RFC 7396). `null` is refused: none of them may be absent.",
    responses={200: {"model": PatientAnswer}, **_errors(400, 404, 415)},
)
async def change_patient(shard: ShardToWrite, patient_id: PatientId, body: PatientChanges) -> Response:
    """Some of name, age and mobile anew."""
    return _Envelope("Patient updated successfully!", await patients.change_patient(shard, patient_id, body))


@router.delete(
    "/{patient_id}",
    summary="Delete a patient",
    description="The patient is hidden, not erased: it can be restored.",
    responses={200: {"model": DoneAnswer}, **_errors(404)},
)
async def delete_patient(shard: ShardToDelete, patient_id: PatientId) -> Response:
    """A soft delete."""
    await patients.delete_patient(shard, patient_id)
    return success("Patient deleted successfully!")


@router.post(
    "/{patient_id}/restore",
    summary="Restore a patient",
    description="Undoes a deletion; a patient that is active stays as it is.",
    responses={200: {"model": PatientAnswer}, **_errors(404)},
)
async def restore_patient(shard: ShardToDelete, patient_id: PatientId) -> Response:
    """The patient, active again."""
    return _Envelope("Patient restored successfully!", await patients.restore_patient(shard, patient_id))
