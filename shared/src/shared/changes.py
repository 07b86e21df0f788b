"""The feeds that gateways poll (`/internal/changes`): what may be in them, and their document."""

from collections.abc import Iterable
from typing import Any

import orjson
from fastapi import Response

SESSION_REVOKED = "session-revoked"
SESSION_CHANGED = "session-changed"
"""Its tokens issued so far are refused: what they say of the role is no longer true. A refresh gets better ones."""
PRACTICE_SUSPENDED = "practice-suspended"
PRACTICE_RESUMED = "practice-resumed"
SHARD_RELEASED = "shard-released"
SHARD_QUARANTINED = "shard-quarantined"
SHARD_FENCED = "shard-fenced"
SHARD_UNFENCED = "shard-unfenced"
SHARD_MOVED = "shard-moved"
MAX_CHANGES = 10_000
"""In one answer; the next poll goes on behind the last one."""


def changes_answer(
    changes: Iterable[dict[str, Any]], *, last: int, is_reset: bool, signing_key: str | None = None
) -> Response:
    """`{"changes", "last", "reset"?}`: `last` is to be asked after next, `reset` tells to forget what was known.

    `signing_key` is the id of the key that tokens are signed with now: gateways fetch it before they need it.
    """
    document: dict[str, Any] = {"changes": list(changes), "last": last}
    if signing_key:
        document["signing_key"] = signing_key
    if is_reset:
        document["reset"] = True
    return Response(orjson.dumps(document), media_type="application/json")
