"""How answers show what the rules return."""

from datetime import UTC, datetime
from typing import Any

from auth_service.sessions import Tokens


def shown_tokens(tokens: Tokens) -> dict[str, Any]:
    """What stands at the top level of an answer that lets somebody in."""
    return {"token": tokens.access, "refresh_token": tokens.refresh, "expires_in": tokens.expires_in_s}


def shown(value: Any) -> Any:
    """Times as RFC 3339 in UTC with `Z`."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
