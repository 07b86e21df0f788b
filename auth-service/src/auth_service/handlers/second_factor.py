"""The second factor: codes of an authenticator app."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response

from auth_service.dependencies import OriginDep, RulesDep
from auth_service.models import second_factor as models
from auth_service.models.common import Done
from shared.app import requires
from shared.envelope import success
from shared.models import problems
from shared.roles import Permission

router = APIRouter(prefix="/api/v1/auth/totp")
_OWN: dict[str, Any] = {"tags": ["second factor"], "dependencies": [requires(Permission.ACCOUNT_MANAGE)]}
_WITH_CODE = problems(400, 401, 403, 409, 415, 422, 429, 503)


@router.get(
    "",
    summary="See whether you have a second factor",
    description="And how many recovery codes are left.",
    response_model=models.FactorStateFound,
    responses=problems(401, 403, 503),
    **_OWN,
)
async def show_state(rules: RulesDep, origin: OriginDep) -> Response:
    return success("Second factor fetched successfully!", asdict(await rules.second_factors.state(origin)))


@router.post(
    "",
    summary="Set up an authenticator app",
    description="Show `svg` to be scanned, or `secret` to be typed; then confirm with a code. Nothing changes before.",
    response_model=models.Enrolled,
    responses=problems(401, 403, 409, 503),
    **_OWN,
)
async def begin(rules: RulesDep, origin: OriginDep) -> Response:
    return success("Second factor prepared successfully!", asdict(await rules.second_factors.begin(origin)))


@router.post(
    "/confirm",
    summary="Confirm the authenticator app with a code",
    description="From now on log-in asks for a code. Keep the recovery codes: each is good for one log-in, "
    "and they are shown this once.",
    response_model=models.RecoveryCodesShown,
    responses=_WITH_CODE,
    **_OWN,
)
async def confirm(body: models.CodeBody, rules: RulesDep, origin: OriginDep) -> Response:
    codes = await rules.second_factors.confirm(body.code, origin)
    return success("Second factor enabled successfully!", {"recovery_codes": codes})


@router.post(
    "/recovery-codes",
    summary="Get new recovery codes",
    description="The old ones are worth nothing afterwards.",
    response_model=models.RecoveryCodesShown,
    responses=_WITH_CODE,
    **_OWN,
)
async def renew_recovery_codes(body: models.CodeBody, rules: RulesDep, origin: OriginDep) -> Response:
    codes = await rules.second_factors.renew_recovery_codes(body.code, origin)
    return success("Recovery codes renewed successfully!", {"recovery_codes": codes})


@router.delete(
    "",
    summary="Remove your second factor",
    description="Takes a code of the app or a recovery code.",
    response_model=Done,
    responses=_WITH_CODE,
    **_OWN,
)
async def remove(body: models.CodeBody, rules: RulesDep, origin: OriginDep) -> Response:
    await rules.second_factors.remove(body.code, origin)
    return success("Second factor removed successfully!")
