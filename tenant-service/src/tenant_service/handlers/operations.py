"""The record of what the platform's admin did."""

from typing import Annotated, Any

from fastapi import Query, Request, Response

from shared.cursor import DEFAULT_LIMIT, CursorText, Limit
from shared.models import problems
from tenant_service import listing
from tenant_service.dependencies import Central, PracticeId
from tenant_service.handlers.shapes import admin_router, page_answer
from tenant_service.models.operations import OperationItem, OperationsAnswer

router = admin_router()


@router.get(
    "/operations",
    summary="Read the record of operations",
    responses={200: {"model": OperationsAnswer}, **problems(400, 401, 403, 422, 503)},
)
def list_operations(
    request: Request,
    central: Central,
    practice_id: Annotated[PracticeId | None, Query(description="About this practice only.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response:
    """Servers, jobs and copies, the newest first. Entries are never changed or deleted."""
    rows, next_cursor = listing.page_of_operations(central, practice_id=practice_id, limit=limit, cursor=cursor)
    shown = [OperationItem.model_validate(row, from_attributes=True).model_dump(mode="json") for row in rows]
    result: dict[str, Any] = {"data": shown}
    message = "Operations fetched successfully!"
    return page_answer(request, result, next_cursor=next_cursor, limit=limit, message=message)
