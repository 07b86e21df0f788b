"""Practices: signing up, listing, operating."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response

from auth_service.dependencies import OriginDep, RulesDep
from auth_service.handlers.shapes import picked, shown_page
from auth_service.models import practices as models
from auth_service.storage.practices import Practice
from shared.app import CallerDep, requires
from shared.cursor import DEFAULT_LIMIT, CursorText, Limit
from shared.envelope import success
from shared.models import problems
from shared.roles import Permission, allows

PRACTICES_PATH = "/api/v1/practices"
ADMIN_PRACTICES_PATH = "/api/v1/admin/practices"

POLICY_PATH = f"{PRACTICES_PATH}/policy"

router = APIRouter()
_MANAGE: dict[str, Any] = {"tags": ["practices"], "dependencies": [requires(Permission.PRACTICE_MANAGE)]}

# Two addresses: the original's shorter ones are answered too.
_SIGN_UP: dict[str, Any] = {
    "tags": ["practices"],
    "summary": "Sign a practice up",
    "description": "Registers a practice with a database of its own. Either all of it exists afterwards, or nothing.",
    "status_code": 201,
    "response_model": models.SignedUp,
    "responses": problems(400, 409, 415, 422, 429, 503),
}
_OPERATE: dict[str, Any] = {
    "response_model": models.OnePractice,
    "responses": problems(401, 403, 404, 409, 422, 503),
    "dependencies": [requires(Permission.PLATFORM_OPERATE)],
}


@router.post("/api/v1/signup", deprecated=True, **_SIGN_UP)
@router.post("/api/v1/practices/signup", **_SIGN_UP)
async def sign_up(body: models.SignUpBody, rules: RulesDep, origin: OriginDep) -> Response:
    signup = await rules.signing_up.register(body, origin=origin)
    result = {"id": signup.practice_id, "name": signup.name, "email": signup.email}
    return success("Practice registered successfully!", result, status=201)


@router.get(
    PRACTICES_PATH,
    tags=["practices"],
    summary="List practices",
    description="The admin sees all practices, suspended ones too; a practice sees itself.",
    response_model=models.PracticesFound,
    responses=problems(400, 401, 403, 422, 503),
)
async def list_practices(
    rules: RulesDep, caller: CallerDep, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Response:
    page = await rules.listing.visible_to(caller, limit=limit, cursor=cursor)
    keys = ("id", "name", "email", "status") if allows(caller, Permission.PLATFORM_READ) else ("id", "name", "email")
    return shown_page("Practices fetched successfully!", page, keys, path=PRACTICES_PATH, limit=limit)


@router.get(
    ADMIN_PRACTICES_PATH,
    tags=["admin"],
    summary="List practices with their details",
    description="Every practice in every state; for the platform's admin only.",
    response_model=models.PracticeDetailsFound,
    responses=problems(400, 401, 403, 422, 503),
    dependencies=[requires(Permission.PLATFORM_READ)],
)
async def list_practices_with_details(
    rules: RulesDep, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Response:
    page = await rules.listing.page(limit=limit, cursor=cursor, registered_only=False)
    keys = ("id", "name", "email", "status", "database_name", "created_at")
    return shown_page("Practices fetched successfully!", page, keys, path=ADMIN_PRACTICES_PATH, limit=limit)


@router.post(
    f"{ADMIN_PRACTICES_PATH}/{{practice_id}}/suspend",
    tags=["admin"],
    summary="Suspend a practice",
    description="Within seconds every call of the practice is refused (403, `practice-suspended`), a log-in too. "
    "Its sessions don't end and its data stays. Suspending it again changes nothing.",
    **_OPERATE,
)
async def suspend_practice(practice_id: UUID, rules: RulesDep, origin: OriginDep) -> Response:
    return _practice("Practice suspended successfully!", await rules.suspension.suspend(practice_id, origin))


@router.post(
    f"{ADMIN_PRACTICES_PATH}/{{practice_id}}/resume",
    tags=["admin"],
    summary="Resume a suspended practice",
    description="Within seconds the tokens that the practice has work again. Resuming it again changes nothing.",
    **_OPERATE,
)
async def resume_practice(practice_id: UUID, rules: RulesDep, origin: OriginDep) -> Response:
    return _practice("Practice resumed successfully!", await rules.suspension.resume(practice_id, origin))


def _practice(message: str, practice: Practice) -> Response:
    return success(message, picked(practice, ("id", "name", "email", "status")))


@router.get(
    POLICY_PATH,
    summary="See what the practice demands of its people",
    description="The roles of which it wants a second factor.",
    response_model=models.PolicyFound,
    responses=problems(401, 403, 503),
    **_MANAGE,
)
async def show_policy(rules: RulesDep, origin: OriginDep) -> Response:
    roles = await rules.policy.second_factor_roles(origin)
    return success("Policy fetched successfully!", {"second_factor_roles": roles})


@router.put(
    POLICY_PATH,
    summary="Demand a second factor of some roles",
    description="Who has such a role and none can do nothing but set one up: everything else is refused (403, "
    "`second-factor-enrolment-required`) until it is confirmed and the token refreshed.",
    response_model=models.PolicyFound,
    responses=problems(400, 401, 403, 409, 415, 422, 503),
    **_MANAGE,
)
async def change_policy(body: models.PolicyBody, rules: RulesDep, origin: OriginDep) -> Response:
    roles = await rules.policy.want_second_factor(body.second_factor_roles, origin)
    return success("Policy changed successfully!", {"second_factor_roles": roles})
