"""What handlers are given: the caller's shard, and the patient's id in the path."""

import re
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Request

from patient_service.exceptions import PatientNotFoundError
from patient_service.storage import ShardSession
from shared.app import CallerDep

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


async def shard_of(request: Request, caller: CallerDep) -> ShardSession:
    """The shard that the signed context names; it is read and opened by the first statement."""
    return ShardSession(request.app.state.pool, caller.practice_id, caller.shard)


async def patient_id_of(
    patient_id: Annotated[str, Path(description="The patient's id.", json_schema_extra={"format": "uuid"})],
) -> UUID:
    """The id in the path. One that can't be a patient's is answered as an unknown one."""
    if not _UUID.fullmatch(patient_id):
        raise PatientNotFoundError
    return UUID(patient_id)


ShardDep = Annotated[ShardSession, Depends(shard_of)]
PatientId = Annotated[UUID, Depends(patient_id_of)]
