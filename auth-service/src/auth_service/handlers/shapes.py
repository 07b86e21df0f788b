"""How answers show what the rules return."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import Response

from auth_service.paging import Page
from auth_service.sessions import Tokens
from shared.envelope import success


def shown_tokens(tokens: Tokens) -> dict[str, Any]:
    """What stands at the top level of an answer that lets somebody in."""
    return {"token": tokens.access, "refresh_token": tokens.refresh, "expires_in": tokens.expires_in_s}


def picked(item: object, keys: Sequence[str]) -> dict[str, Any]:
    """These attributes, as answers show them."""
    return {key: shown(getattr(item, key)) for key in keys}


def shown_page(message: str, page: Page[Any], keys: Sequence[str], *, path: str, limit: int) -> Response:
    """A page, with the link to the next one where there is more (RFC 8288)."""
    result: dict[str, Any] = {"data": [picked(item, keys) for item in page.items]}
    if page.next_cursor is None:
        return success(message, result)
    result["next_cursor"] = page.next_cursor
    return success(message, result, Link=f'<{path}?limit={limit}&cursor={page.next_cursor}>; rel="next"')


def shown(value: Any) -> Any:
    """Times as RFC 3339 in UTC with `Z`."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
