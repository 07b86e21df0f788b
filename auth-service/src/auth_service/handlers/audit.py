"""The audit of accounts."""

from dataclasses import fields
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime

from auth_service.audit_reading import Wanted
from auth_service.dependencies import RulesDep
from auth_service.handlers.shapes import shown_page
from auth_service.models import audit as models
from auth_service.storage.audit import Entry
from shared.app import CallerDep
from shared.cursor import DEFAULT_LIMIT, CursorText, Limit
from shared.models import problems

PATH = "/api/v1/audit"
_SHOWN = [field.name for field in fields(Entry)]

router = APIRouter()


@router.get(
    PATH,
    tags=["audit"],
    summary="Read the audit of accounts",
    description="Log-ins, passwords, staff, keys and second factors, the newest first. A practice's owners and "
    "auditors see their own, the platform's admin sees all. Entries are never changed or deleted.",
    response_model=models.EntriesFound,
    responses=problems(400, 401, 403, 422, 503),
)
async def read_audit(  # noqa: PLR0917 - what one may look for
    rules: RulesDep,
    caller: CallerDep,
    action: Annotated[str | None, Query(max_length=100, examples=["session.logged-in"])] = None,
    outcome: Literal["success", "failure"] | None = None,
    person_id: UUID | None = None,
    practice_id: Annotated[UUID | None, Query(description="For the platform's admin.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="The first moment wanted.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="The first moment not wanted any more.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response:
    wanted = Wanted(action, outcome, person_id, practice_id, since, until)
    page = await rules.audit_reading.page(caller, wanted, limit=limit, cursor=cursor)
    return shown_page("Audit fetched successfully!", page, _SHOWN, path=PATH, limit=limit)
