"""The envelope of every success."""

from typing import Any

import orjson
from fastapi import Response

_MEDIA_TYPE = "application/json"


def success(
    message: str,
    result: Any = None,
    *,
    status: int = 200,
    beside: dict[str, Any] | None = None,
    **headers: str,
) -> Response:
    """`{"success", "status", "message", "result"?}`; `beside` stands at top level (a log-in's token)."""
    document: dict[str, Any] = {"success": True, "status": status, "message": message, **(beside or {})}
    if result is not None:
        document["result"] = result
    return Response(
        orjson.dumps(document),
        status_code=status,
        media_type=_MEDIA_TYPE,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )
