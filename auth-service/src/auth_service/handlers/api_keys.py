"""API keys for machines."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response

from auth_service.dependencies import OriginDep, RulesDep
from auth_service.handlers.shapes import picked, shown_page
from auth_service.models import api_keys as models
from auth_service.models.common import Done
from shared.app import requires
from shared.cursor import DEFAULT_LIMIT, CursorText, Limit
from shared.envelope import success
from shared.models import problems
from shared.roles import Permission

PATH = "/api/v1/api-keys"
_SHOWN = (
    "id",
    "name",
    "prefix",
    "permissions",
    "created_by",
    "created_at",
    "expires_at",
    "last_used_at",
    "is_expired",
)

router = APIRouter()
_MANAGE: dict[str, Any] = {"tags": ["API keys"], "dependencies": [requires(Permission.API_KEYS_MANAGE)]}


@router.post(
    PATH,
    summary="Make an API key",
    description="For a program that works for the practice. `key` is shown this once; send it as "
    "`Authorization: Bearer gwk_…`. It may do what `permissions` say, and nothing else.",
    status_code=201,
    response_model=models.KeyMade,
    responses=problems(400, 401, 403, 409, 415, 422, 503),
    **_MANAGE,
)
async def make_key(body: models.NewKeyBody, rules: RulesDep, origin: OriginDep) -> Response:
    made = await rules.api_keys.make(body, origin)
    return success("API key created successfully!", {**picked(made.row, _SHOWN), "key": made.key}, status=201)


@router.get(
    PATH,
    summary="List API keys",
    description="Those that weren't revoked, expired ones too.",
    response_model=models.KeysFound,
    responses=problems(400, 401, 403, 422, 503),
    **_MANAGE,
)
async def list_keys(
    rules: RulesDep, origin: OriginDep, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Response:
    page = await rules.api_keys.page(origin, limit=limit, cursor=cursor)
    return shown_page("API keys fetched successfully!", page, _SHOWN, path=PATH, limit=limit)


@router.delete(
    f"{PATH}/{{key_id}}",
    summary="Revoke an API key",
    description="It is refused within seconds.",
    response_model=Done,
    responses=problems(401, 403, 404, 422, 503),
    **_MANAGE,
)
async def revoke_key(key_id: UUID, rules: RulesDep, origin: OriginDep) -> Response:
    await rules.api_keys.revoke(key_id, origin)
    return success("API key revoked successfully!")
