"""Logging in, staying logged in, logging out."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response

from auth_service.dependencies import OriginDep, RulesDep
from auth_service.handlers.shapes import shown_page, shown_tokens
from auth_service.models import sessions as models
from auth_service.models.common import Done
from shared.app import requires
from shared.cursor import DEFAULT_LIMIT, CursorText, Limit
from shared.envelope import success
from shared.models import problems
from shared.roles import Permission

SESSIONS_PATH = "/api/v1/auth/sessions"

router = APIRouter()

# Two addresses: the original's shorter one is answered too.
_LOG_IN: dict[str, Any] = {
    "tags": ["practices"],
    "summary": "Log in",
    "description": "Opens a session in the practice last used. Send the token as `Authorization: Bearer`.",
    "response_model": models.LoggedIn,
    "responses": problems(400, 401, 403, 415, 422, 429, 503),
}


@router.post("/api/v1/login", deprecated=True, **_LOG_IN)
@router.post("/api/v1/practices/login", **_LOG_IN)
async def log_in(body: models.LogInBody, rules: RulesDep, origin: OriginDep) -> Response:
    tokens = await rules.logging_in.log_in(body, origin=origin)
    return success("Login successful!", beside=shown_tokens(tokens))


@router.post(
    "/api/v1/auth/refresh",
    tags=["sessions"],
    summary="Get the next tokens",
    description="A refresh token is good for one use (and for a repetition within a minute). "
    "One that is used again later ends its session.",
    response_model=models.LoggedIn,
    responses=problems(400, 401, 403, 415, 422, 503),
)
async def refresh(body: models.RefreshBody, rules: RulesDep, origin: OriginDep) -> Response:
    tokens = await rules.sessions.refresh(body.refresh_token, origin)
    return success("Token refreshed successfully!", beside=shown_tokens(tokens))


@router.post(
    "/api/v1/auth/logout",
    tags=["sessions"],
    summary="Log out",
    description="Ends this session: its tokens are refused within seconds.",
    response_model=Done,
    responses=problems(401, 503),
)
async def log_out(rules: RulesDep, origin: OriginDep) -> Response:
    await rules.sessions.end(origin)
    return success("Logged out successfully!")


_OWN: dict[str, Any] = {"tags": ["sessions"], "dependencies": [requires(Permission.ACCOUNT_MANAGE)]}


@router.get(
    SESSIONS_PATH,
    summary="List your sessions",
    description="Where you are logged in, in any practice, the newest log-in first.",
    response_model=models.SessionsFound,
    responses=problems(400, 401, 403, 422, 503),
    **_OWN,
)
async def list_sessions(
    rules: RulesDep, origin: OriginDep, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Response:
    page = await rules.sessions.list_own(origin, limit=limit, cursor=cursor)
    keys = ("id", "practice_id", "device", "address", "created_at", "last_used_at", "expires_at", "current")
    return shown_page("Sessions fetched successfully!", page, keys, path=SESSIONS_PATH, limit=limit)


@router.delete(
    SESSIONS_PATH,
    summary="Log out everywhere",
    description="Ends all your sessions, this one too.",
    response_model=Done,
    responses=problems(401, 403, 503),
    **_OWN,
)
async def end_sessions(rules: RulesDep, origin: OriginDep) -> Response:
    await rules.sessions.end_all(origin)
    return success("Logged out everywhere successfully!")


@router.delete(
    f"{SESSIONS_PATH}/{{session_id}}",
    summary="End one of your sessions",
    description="Its tokens are refused within seconds.",
    response_model=Done,
    responses=problems(401, 403, 404, 422, 503),
    **_OWN,
)
async def end_session(session_id: UUID, rules: RulesDep, origin: OriginDep) -> Response:
    await rules.sessions.end_one(session_id, origin)
    return success("Session ended successfully!")
