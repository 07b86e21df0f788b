"""Staff, invitations, and the practices that a person works in."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response

from auth_service.dependencies import OriginDep, RulesDep
from auth_service.handlers.shapes import picked, shown_page, shown_tokens
from auth_service.models import staff as models
from auth_service.models.common import Done
from auth_service.models.sessions import LoggedIn
from shared.app import requires
from shared.cursor import DEFAULT_LIMIT, CursorText, Limit
from shared.envelope import success
from shared.models import problems
from shared.roles import Permission

STAFF_PATH = "/api/v1/staff"
INVITATIONS_PATH = f"{STAFF_PATH}/invitations"
_INVITATION = ("id", "email", "role", "created_at", "sent_at", "expires_at", "is_expired")
_MEMBER = ("id", "name", "email", "role", "created_at", "last_used_at")

router = APIRouter()
_MANAGE: dict[str, Any] = {"tags": ["staff"], "dependencies": [requires(Permission.STAFF_MANAGE)]}
_OWN: dict[str, Any] = {"tags": ["sessions"], "dependencies": [requires(Permission.ACCOUNT_MANAGE)]}


@router.post(
    INVITATIONS_PATH,
    summary="Invite somebody to the practice",
    description="Sends a mail with a link that is good for 72 hours and one use.",
    status_code=201,
    response_model=models.OneInvitation,
    responses=problems(400, 401, 403, 409, 415, 422, 429, 503),
    **_MANAGE,
)
async def invite(body: models.InviteBody, rules: RulesDep, origin: OriginDep) -> Response:
    invitation = await rules.invitations.invite(body, origin)
    return success("Invitation sent successfully!", picked(invitation, _INVITATION), status=201)


@router.get(
    INVITATIONS_PATH,
    summary="List open invitations",
    description="Those that nobody accepted or revoked, expired ones too.",
    response_model=models.InvitationsFound,
    responses=problems(400, 401, 403, 422, 503),
    **_MANAGE,
)
async def list_invitations(
    rules: RulesDep, origin: OriginDep, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Response:
    page = await rules.invitations.page(origin, limit=limit, cursor=cursor)
    return shown_page("Invitations fetched successfully!", page, _INVITATION, path=INVITATIONS_PATH, limit=limit)


@router.post(
    f"{INVITATIONS_PATH}/accept",
    tags=["staff"],
    summary="Accept an invitation",
    description="A new person gets the name and the password; a known one gives the password that they have, and "
    "keeps the name. Log in afterwards.",
    response_model=models.InvitationAccepted,
    responses=problems(400, 401, 403, 415, 422, 429, 503),
)
async def accept(body: models.AcceptBody, rules: RulesDep, origin: OriginDep) -> Response:
    invitation = await rules.invitations.accept(body, origin)
    return success("Invitation accepted successfully!", picked(invitation, ("practice_id", "email", "role")))


@router.post(
    f"{INVITATIONS_PATH}/{{invitation_id}}/resend",
    summary="Send an invitation again",
    description="With a new link, good for another 72 hours; the one before is worth nothing.",
    response_model=models.OneInvitation,
    responses=problems(401, 403, 404, 422, 429, 503),
    **_MANAGE,
)
async def send_again(invitation_id: UUID, rules: RulesDep, origin: OriginDep) -> Response:
    invitation = await rules.invitations.send_again(invitation_id, origin)
    return success("Invitation sent again successfully!", picked(invitation, _INVITATION))


@router.delete(
    f"{INVITATIONS_PATH}/{{invitation_id}}",
    summary="Revoke an invitation",
    description="Its link is worth nothing from now on.",
    response_model=Done,
    responses=problems(401, 403, 404, 422, 503),
    **_MANAGE,
)
async def revoke(invitation_id: UUID, rules: RulesDep, origin: OriginDep) -> Response:
    await rules.invitations.revoke(invitation_id, origin)
    return success("Invitation revoked successfully!")


@router.get(
    STAFF_PATH,
    summary="List the staff",
    description="Everybody who works in the practice.",
    response_model=models.MembersFound,
    responses=problems(400, 401, 403, 422, 503),
    **_MANAGE,
)
async def list_staff(
    rules: RulesDep, origin: OriginDep, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Response:
    page = await rules.staff.page(origin, limit=limit, cursor=cursor)
    return shown_page("Staff fetched successfully!", page, _MEMBER, path=STAFF_PATH, limit=limit)


@router.patch(
    f"{STAFF_PATH}/{{person_id}}",
    summary="Give somebody another role",
    description="Tokens that name the old role are refused within seconds (401); refreshing brings the new one. "
    "The last owner stays one.",
    response_model=models.OneMember,
    responses=problems(400, 401, 403, 404, 409, 415, 422, 503),
    **_MANAGE,
)
async def change_role(person_id: UUID, body: models.RoleBody, rules: RulesDep, origin: OriginDep) -> Response:
    member = await rules.staff.change_role(person_id, body.role, origin)
    return success("Role changed successfully!", picked(member, _MEMBER))


@router.delete(
    f"{STAFF_PATH}/{{person_id}}",
    summary="Remove somebody from the practice",
    description="Ends their sessions here within seconds. The last owner can't be removed. API keys stay: they are the "
    "practice's.",
    response_model=Done,
    responses=problems(401, 403, 404, 409, 422, 503),
    **_MANAGE,
)
async def remove(person_id: UUID, rules: RulesDep, origin: OriginDep) -> Response:
    await rules.staff.remove(person_id, origin)
    return success("Staff member removed successfully!")


@router.get(
    "/api/v1/auth/practices",
    summary="List the practices that you work in",
    description="`auth/switch` takes one of these.",
    response_model=models.WorkplacesFound,
    responses=problems(401, 403, 503),
    **_OWN,
)
async def list_workplaces(rules: RulesDep, origin: OriginDep) -> Response:
    found = await rules.staff.workplaces(origin)
    keys = ("id", "name", "role", "status")
    data = [{**picked(one, keys), "current": one.id == origin.practice_id} for one in found]
    return success("Practices fetched successfully!", {"data": data})


@router.post(
    "/api/v1/auth/switch",
    summary="Work in another practice",
    description="Opens a session there, without a log-in; the session that asks goes on.",
    response_model=LoggedIn,
    responses=problems(400, 401, 403, 404, 415, 422, 503),
    **_OWN,
)
async def switch(body: models.SwitchBody, rules: RulesDep, origin: OriginDep) -> Response:
    tokens = await rules.sessions.switch(body.practice_id, origin)
    return success("Switched successfully!", beside=shown_tokens(tokens))
