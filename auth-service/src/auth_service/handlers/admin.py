"""The platform's admin logs in and out. Whoever gets here has shown the name and the password, or such a token."""

from typing import Any

from fastapi import APIRouter, Response

from auth_service.dependencies import OriginDep, RulesDep
from auth_service.models import sessions as models
from auth_service.models.common import Done
from auth_service.tokens import ADMIN_LIFE_S
from shared.app import requires
from shared.envelope import success
from shared.models import problems
from shared.roles import Permission

router = APIRouter(prefix="/api/v1/admin")
_ADMIN: dict[str, Any] = {"tags": ["admin"], "dependencies": [requires(Permission.PLATFORM_READ)]}


@router.post(
    "/login",
    summary="Get a token for the admin's calls",
    description="With HTTP Basic. The token is good for a quarter of an hour, on the admin's routes only, and is not "
    "refreshed.",
    response_model=models.AdminLoggedIn,
    responses=problems(401, 403, 429, 503),
    **_ADMIN,
)
async def log_in(rules: RulesDep, origin: OriginDep) -> Response:
    token = await rules.admin_sessions.open(origin)
    return success("Login successful!", beside={"token": token, "expires_in": ADMIN_LIFE_S})


@router.post(
    "/logout",
    summary="End the admin's token",
    description="The token that is sent is refused within seconds.",
    response_model=Done,
    responses=problems(401, 403, 503),
    **_ADMIN,
)
async def log_out(rules: RulesDep, origin: OriginDep) -> Response:
    await rules.admin_sessions.end(origin)
    return success("Logged out successfully!")
