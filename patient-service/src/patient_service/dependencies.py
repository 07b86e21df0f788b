"""What handlers are given: the shard of a caller who may do this, and the patient's id in the path."""

import re
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Path, Request

from patient_service.exceptions import PatientNotFoundError
from patient_service.storage import ShardSession
from shared.app import caller_of
from shared.errors import ForbiddenError
from shared.roles import Permission, allows

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _shard_for(permission: Permission) -> Any:
    """A route's dependency: the caller's shard, for whoever may do this. It is read and opened by the first statement.

    One dependency instead of `shared.app.requires` and a second one: each costs the hot path a twentieth.
    """

    async def shard_of(request: Request) -> ShardSession:
        caller = await caller_of(request)
        if not allows(caller.role, permission):
            raise ForbiddenError
        return ShardSession(request.app.state.pool, caller.practice_id, caller.shard)

    return Depends(shard_of)


async def patient_id_of(
    patient_id: Annotated[str, Path(description="The patient's id.", json_schema_extra={"format": "uuid"})],
) -> UUID:
    """The id in the path. One that can't be a patient's is answered as an unknown one."""
    if not _UUID.fullmatch(patient_id):
        raise PatientNotFoundError
    return UUID(patient_id)


PatientId = Annotated[UUID, Depends(patient_id_of)]
ShardToRead = Annotated[ShardSession, _shard_for(Permission.PATIENTS_READ)]
ShardToWrite = Annotated[ShardSession, _shard_for(Permission.PATIENTS_WRITE)]
ShardToDelete = Annotated[ShardSession, _shard_for(Permission.PATIENTS_DELETE)]
