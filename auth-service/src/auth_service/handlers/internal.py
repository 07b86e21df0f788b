"""What other services ask for, and the keys that anybody may know."""

from dataclasses import asdict
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Path, Query, Response

from auth_service.dependencies import RulesDep
from auth_service.models import internal as models
from shared.app import service_only
from shared.changes import changes_answer
from shared.envelope import success

JWKS_MAX_AGE_S = 300

Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]

keys = APIRouter()
router = APIRouter(prefix="/internal", include_in_schema=False, dependencies=[Depends(service_only)])


@keys.get("/.well-known/jwks.json", include_in_schema=False)
async def key_set(rules: RulesDep) -> Response:
    return Response(
        orjson.dumps(rules.access_tokens.key_set()),
        media_type="application/json",
        headers={"Cache-Control": f"public, max-age={JWKS_MAX_AGE_S}"},
    )


@router.post("/receipts")
async def note_receipt(body: models.ReceiptBody, rules: RulesDep) -> Response:
    await rules.receipts.note(body)
    return success("Receipt noted.")


@router.get("/api-keys/{digest}")
async def find_api_key(digest: Digest, rules: RulesDep) -> Response:
    """What a gateway has to know of the key with this SHA-256; 404 when there is no good one."""
    key = await rules.api_keys.use(bytes.fromhex(digest))
    document = {
        "id": key.id,
        "practice_id": key.practice_id,
        "permissions": key.permissions,
        "created_at": int(key.created_at.timestamp()),
        "expires_at": key.expires_at and int(key.expires_at.timestamp()),
    }
    return Response(orjson.dumps(document), media_type="application/json")


@router.get("/changes")
async def show_changes(rules: RulesDep, after: Annotated[int | None, Query(ge=0, le=2**63 - 1)] = None) -> Response:
    news = await rules.revocations.after(after)
    return changes_answer(
        map(asdict, news.changes), last=news.last, is_reset=news.is_reset, signing_key=rules.access_tokens.key_id
    )
