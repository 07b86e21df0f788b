"""The platform's admin closes a practice, thinks better of it, exports what it stored, shows that it was destroyed."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response

from auth_service.dependencies import OriginDep, RulesDep
from auth_service.handlers.practices import ADMIN_PRACTICES_PATH
from auth_service.handlers.shapes import shown
from auth_service.models import closing as models
from auth_service.storage.practices import CLOSING
from shared.app import requires
from shared.envelope import success
from shared.models import problems
from shared.roles import Permission

_PRACTICE = f"{ADMIN_PRACTICES_PATH}/{{practice_id}}"
_OPERATE: dict[str, Any] = {"tags": ["admin"], "dependencies": [requires(Permission.PLATFORM_OPERATE)]}

router = APIRouter()


@router.post(
    f"{_PRACTICE}/close",
    summary="Close a practice",
    description="Within seconds every call of the practice is refused as of a suspended one. Until `until` it can be "
    "undone; then its database, its copies, its backups and their key are destroyed, and its people with them, unless "
    "they work elsewhere too. Closing it again changes nothing.",
    response_model=models.ClosureShown,
    responses=problems(401, 403, 404, 409, 422, 503),
    **_OPERATE,
)
async def close_practice(practice_id: UUID, rules: RulesDep, origin: OriginDep) -> Response:
    closure = await rules.closing.close(practice_id, origin)
    result = {"practice": practice_id, "status": CLOSING, "until": shown(closure.until)}
    return success("Practice is being closed.", result)


@router.post(
    f"{_PRACTICE}/undo-close",
    summary="Undo the closing of a practice",
    description="It goes on as what it was, with the tokens that it has.",
    response_model=models.ClosureShown,
    responses=problems(401, 403, 404, 409, 422, 503),
    **_OPERATE,
)
async def undo_closing(practice_id: UUID, rules: RulesDep, origin: OriginDep) -> Response:
    practice = await rules.closing.undo(practice_id, origin)
    result = {"practice": practice_id, "status": practice.status, "until": None}
    return success("Closing undone successfully!", result)


@router.post(
    f"{_PRACTICE}/export",
    summary="Export what a practice stored",
    description="Patients as CSV and JSON, deleted ones too, and the audit of its accounts, as one archive in a folder "
    "on tenant-service's machine, which its owner alone may read.",
    status_code=201,
    response_model=models.ExportShown,
    responses=problems(400, 401, 403, 404, 409, 415, 422, 503),
    **_OPERATE,
)
async def export_practice(practice_id: UUID, body: models.ExportBody, rules: RulesDep, origin: OriginDep) -> Response:
    exported = await rules.closing.export(practice_id, body.to, origin)
    result = {"practice": practice_id, "path": exported.path, "rows": exported.rows}
    return success("Practice exported successfully!", result, status=201)


@router.get(
    f"{_PRACTICE}/deletion-record",
    summary="Show that a practice's data was destroyed",
    description="A JWS, signed with the key that signs tokens (`/.well-known/jwks.json`), of type "
    "`deletion-record+jwt`: what was destroyed, and when.",
    response_model=models.RecordShown,
    responses=problems(401, 403, 404, 422, 503),
    **_OPERATE,
)
async def show_record(practice_id: UUID, rules: RulesDep) -> Response:
    record = await rules.closing.record(practice_id)
    return success("Deletion record fetched successfully!", {"practice": practice_id, "record": record})
