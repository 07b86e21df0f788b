"""The door: parse, call a rule, shape the answer. No SQL and no decision here."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Header, Query, Response

from auth_service import models
from auth_service.dependencies import RequestId, RulesDep
from auth_service.listing import Page
from auth_service.sessions import Tokens
from auth_service.storage.practices import Practice
from shared.app import CallerDep, requires, service_only
from shared.changes import changes_answer
from shared.cursor import DEFAULT_LIMIT, CursorText, Limit
from shared.envelope import success
from shared.models import problems
from shared.roles import Permission

PRACTICES_PATH = "/api/v1/practices"
ADMIN_PRACTICES_PATH = "/api/v1/admin/practices"
JWKS_MAX_AGE_S = 300

router = APIRouter()
internal = APIRouter(prefix="/internal", include_in_schema=False, dependencies=[Depends(service_only)])

# Two addresses each: the original's shorter ones are answered too.
_SIGN_UP: dict[str, Any] = {
    "tags": ["practices"],
    "summary": "Sign a practice up",
    "description": "Registers a practice with a database of its own. Either all of it exists afterwards, or nothing.",
    "status_code": 201,
    "response_model": models.SignedUp,
    "responses": problems(400, 409, 415, 422, 429, 503),
}
_LOG_IN: dict[str, Any] = {
    "tags": ["practices"],
    "summary": "Log in",
    "description": "Opens a session in the practice last used. Send the token as `Authorization: Bearer`.",
    "response_model": models.LoggedIn,
    "responses": problems(400, 401, 403, 415, 422, 429, 503),
}

_OPERATE: dict[str, Any] = {
    "response_model": models.OnePractice,
    "responses": problems(401, 403, 404, 409, 422, 503),
    "dependencies": [requires(Permission.PLATFORM_OPERATE)],
}

UserAgent = Annotated[str, Header(alias="user-agent", include_in_schema=False)]


@router.post("/api/v1/signup", deprecated=True, **_SIGN_UP)
@router.post("/api/v1/practices/signup", **_SIGN_UP)
async def sign_up(body: models.SignUpBody, rules: RulesDep, caller: CallerDep, request_id: RequestId) -> Response:
    signup = await rules.signing_up.register(body, address=caller.client_address, request_id=request_id)
    result = {"id": signup.practice_id, "name": signup.name, "email": signup.email}
    return success("Practice registered successfully!", result, status=201)


@router.post("/api/v1/login", deprecated=True, **_LOG_IN)
@router.post("/api/v1/practices/login", **_LOG_IN)
async def log_in(body: models.LogInBody, rules: RulesDep, caller: CallerDep, user_agent: UserAgent = "") -> Response:
    tokens = await rules.logging_in.log_in(body, address=caller.client_address, user_agent=user_agent)
    return success("Login successful!", beside=_shown_tokens(tokens))


@router.post(
    "/api/v1/auth/refresh",
    tags=["sessions"],
    summary="Get the next tokens",
    description="A refresh token is good for one use (and for a repetition within a minute). "
    "One that is used again later ends its session.",
    response_model=models.LoggedIn,
    responses=problems(400, 401, 403, 415, 422, 503),
)
async def refresh(body: models.RefreshBody, rules: RulesDep) -> Response:
    tokens = await rules.sessions.refresh(body.refresh_token)
    return success("Token refreshed successfully!", beside=_shown_tokens(tokens))


@router.post(
    "/api/v1/auth/logout",
    tags=["sessions"],
    summary="Log out",
    description="Ends this session: its tokens are refused within seconds.",
    response_model=models.Done,
    responses=problems(401, 503),
)
async def log_out(rules: RulesDep, caller: CallerDep) -> Response:
    await rules.sessions.end(caller)
    return success("Logged out successfully!")


@router.get(
    PRACTICES_PATH,
    tags=["practices"],
    summary="List practices",
    description="The admin sees all active practices, a practice sees itself.",
    response_model=models.PracticesFound,
    responses=problems(400, 401, 403, 422, 503),
)
async def list_practices(
    rules: RulesDep, caller: CallerDep, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Response:
    page = await rules.listing.visible_to(caller, limit=limit, cursor=cursor)
    keys = ("id", "name", "email", "status") if page.is_operators else ("id", "name", "email")
    return _page(page, keys, path=PRACTICES_PATH, limit=limit)


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
    page = await rules.listing.page(limit=limit, cursor=cursor, active_only=False)
    keys = ("id", "name", "email", "status", "database_name", "created_at")
    return _page(page, keys, path=ADMIN_PRACTICES_PATH, limit=limit)


@router.post(
    f"{ADMIN_PRACTICES_PATH}/{{practice_id}}/suspend",
    tags=["admin"],
    summary="Suspend a practice",
    description="Within seconds every call of the practice is refused (403, `practice-suspended`), a log-in too. "
    "Its sessions don't end and its data stays. Suspending it again changes nothing.",
    **_OPERATE,
)
async def suspend_practice(practice_id: UUID, rules: RulesDep) -> Response:
    return _practice("Practice suspended successfully!", await rules.suspension.suspend(practice_id))


@router.post(
    f"{ADMIN_PRACTICES_PATH}/{{practice_id}}/resume",
    tags=["admin"],
    summary="Resume a suspended practice",
    description="Within seconds the tokens that the practice has work again. Resuming it again changes nothing.",
    **_OPERATE,
)
async def resume_practice(practice_id: UUID, rules: RulesDep) -> Response:
    return _practice("Practice resumed successfully!", await rules.suspension.resume(practice_id))


@router.get("/.well-known/jwks.json", include_in_schema=False)
async def key_set(rules: RulesDep) -> Response:
    return Response(
        orjson.dumps(rules.access_tokens.key_set()),
        media_type="application/json",
        headers={"Cache-Control": f"public, max-age={JWKS_MAX_AGE_S}"},
    )


@internal.post("/receipts")
async def note_receipt(body: models.ReceiptBody, rules: RulesDep) -> Response:
    await rules.receipts.note(body)
    return success("Receipt noted.")


@internal.get("/changes")
async def show_changes(rules: RulesDep, after: Annotated[int | None, Query(ge=0, le=2**63 - 1)] = None) -> Response:
    news = await rules.revocations.after(after)
    return changes_answer(map(asdict, news.changes), last=news.last, is_reset=news.is_reset)


def _shown_tokens(tokens: Tokens) -> dict[str, Any]:
    return {"token": tokens.access, "refresh_token": tokens.refresh, "expires_in": tokens.expires_in_s}


def _practice(message: str, practice: Practice) -> Response:
    return success(message, {key: getattr(practice, key) for key in ("id", "name", "email", "status")})


def _page(page: Page, keys: Sequence[str], *, path: str, limit: int) -> Response:
    result: dict[str, Any] = {"data": [{key: _shown(getattr(one, key)) for key in keys} for one in page.practices]}
    if page.next_cursor is None:
        return success("Practices fetched successfully!", result)
    result["next_cursor"] = page.next_cursor
    link = f'<{path}?limit={limit}&cursor={page.next_cursor}>; rel="next"'
    return success("Practices fetched successfully!", result, Link=link)


def _shown(value: Any) -> Any:
    """Times as RFC 3339 in UTC with `Z`."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
