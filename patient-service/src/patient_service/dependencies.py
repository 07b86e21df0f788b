"""What handlers are given: the shard of a caller who may do this, and the patient's id in the path.

Each can be had from FastAPI and, by `from_scope`, without it (`fast_routes`).
"""

import re
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Request
from starlette.types import Scope

from patient_service.exceptions import PatientNotFoundError
from patient_service.storage import ShardSession
from shared.roles import Permission, demand

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class _ShardFor:
    """The caller's shard, for whoever may do this. It is read and opened by the first statement."""

    def __init__(self, permission: Permission) -> None:
        self._permission = permission

    def from_scope(self, scope: Scope) -> ShardSession:
        """Reads what the door left. Raises ForbiddenError, SecondFactorNeededError."""
        caller = scope["state"]["caller"]
        demand(caller, self._permission)
        return ShardSession(scope["app"].state.pool, caller.practice_id, caller.shard)

    async def __call__(self, request: Request) -> ShardSession:
        return self.from_scope(request.scope)


class _PatientIdInPath:
    """The id in the path. One that can't be a patient's is answered as an unknown one."""

    def from_scope(self, scope: Scope) -> UUID:
        """Reads the path's `patient_id`. Raises PatientNotFoundError."""
        text = scope["path_params"]["patient_id"]
        if not _UUID.fullmatch(text):
            raise PatientNotFoundError
        return UUID(text)

    async def __call__(
        self,
        request: Request,
        patient_id: Annotated[  # noqa: ARG002 - declared for the API document
            str, Path(description="The patient's id.", json_schema_extra={"format": "uuid"})
        ],
    ) -> UUID:
        return self.from_scope(request.scope)


PatientId = Annotated[UUID, Depends(_PatientIdInPath())]
ShardToRead = Annotated[ShardSession, Depends(_ShardFor(Permission.PATIENTS_READ))]
ShardToWrite = Annotated[ShardSession, Depends(_ShardFor(Permission.PATIENTS_WRITE))]
ShardToDelete = Annotated[ShardSession, Depends(_ShardFor(Permission.PATIENTS_DELETE))]
