"""Passwords and addresses: forgotten, changed, verified."""

from typing import Any

from fastapi import APIRouter, Response

from auth_service.dependencies import OriginDep, RulesDep
from auth_service.models import passwords as models
from auth_service.models.common import Done
from shared.app import requires
from shared.envelope import success
from shared.models import problems
from shared.roles import Permission

router = APIRouter(prefix="/api/v1/auth")
_PUBLIC: dict[str, Any] = {"tags": ["passwords"], "response_model": Done}
_OWN: dict[str, Any] = {**_PUBLIC, "dependencies": [requires(Permission.ACCOUNT_MANAGE)]}


@router.post(
    "/password/forgot",
    summary="Ask for a new password",
    description="Sends a mail with a token, good for 30 minutes and one use, if the e-mail is somebody's. "
    "The answer is the same if it isn't.",
    responses=problems(400, 415, 422, 429, 503),
    **_PUBLIC,
)
async def forget_password(body: models.ForgotBody, rules: RulesDep, origin: OriginDep) -> Response:
    await rules.password_change.forgot(body.email_key, origin)
    return success("If this e-mail is registered, a mail is on its way.")


@router.post(
    "/password/reset",
    summary="Set a new password with a mail's token",
    description="Ends all sessions. A second factor stays as it is.",
    responses=problems(400, 415, 422, 429, 503),
    **_PUBLIC,
)
async def reset_password(body: models.ResetBody, rules: RulesDep, origin: OriginDep) -> Response:
    await rules.password_change.reset(body.token, body.password, origin)
    return success("Password reset successfully!")


@router.post(
    "/password/change",
    summary="Change your password",
    description="Ends all your other sessions.",
    responses=problems(400, 401, 403, 415, 422, 429, 503),
    **_OWN,
)
async def change_password(body: models.ChangeBody, rules: RulesDep, origin: OriginDep) -> Response:
    await rules.password_change.change(body.current, body.password, origin)
    return success("Password changed successfully!")


@router.post(
    "/email/verify",
    summary="Verify your e-mail address with a mail's token",
    description="The welcome mail brings the first token; it is good for a week and for one use.",
    responses=problems(400, 415, 422, 503),
    **_PUBLIC,
)
async def verify_email(body: models.VerifyBody, rules: RulesDep, origin: OriginDep) -> Response:
    await rules.email_verification.verify(body.token, origin)
    return success("E-mail verified successfully!")


@router.post(
    "/email/resend",
    summary="Send the mail that verifies your address again",
    description="Sends nothing when the address is verified already.",
    responses=problems(401, 403, 429, 503),
    **_OWN,
)
async def send_verification_again(rules: RulesDep, origin: OriginDep) -> Response:
    await rules.email_verification.send_again(origin)
    return success("If this address is not verified yet, a mail is on its way.")
