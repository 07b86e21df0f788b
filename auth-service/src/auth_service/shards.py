"""tenant-service, as far as this service needs it: make a practice's shard, release one, be ready. HTTP only here."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import httpx

from auth_service.exceptions import ShardUnavailableError
from shared.client import async_service_client
from shared.logs import get_logger
from shared.shards import ShardName

_RETRY_AFTER_S = 5
_RELEASE_TIMEOUT_S = 10.0
_READY_TIMEOUT_S = 2.0
_log = get_logger()


class Shards:
    """Calls tenant-service, signed as `service:auth-service`. Connects on the first call."""

    def __init__(self, url: str, *, keys: Sequence[bytes]) -> None:
        self._client = async_service_client(url, name="auth-service", keys=keys)

    async def ensure(self, practice_id: UUID, *, timeout_s: float) -> ShardName:
        """The practice's shard, made if need be. Raises ShardUnavailableError."""
        try:
            async with asyncio.timeout(timeout_s):  # the whole call; httpx's own limits are for each read
                answer = await self._client.put(_path(practice_id))
            answer.raise_for_status()
            return ShardName.parse(answer.json()["shard"])
        except (httpx.HTTPError, TimeoutError, ValueError, KeyError, TypeError) as fault:
            _note("shard_not_made", fault, practice_id=practice_id)
            raise ShardUnavailableError(retry_after_s=_RETRY_AFTER_S) from fault

    async def release(self, practice_id: UUID) -> None:
        """Drops whatever there is of an undone sign-up's shard, for good. Raises ShardUnavailableError."""
        try:
            async with asyncio.timeout(_RELEASE_TIMEOUT_S):
                answer = await self._client.delete(_path(practice_id))
            answer.raise_for_status()
        except (httpx.HTTPError, TimeoutError) as fault:
            _note("shard_not_released", fault, practice_id=practice_id)
            raise ShardUnavailableError(retry_after_s=_RETRY_AFTER_S) from fault

    async def missing(self) -> str | None:
        """Why tenant-service couldn't serve a sign-up now; None when it could."""
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                answer = await self._client.get("/readyz")
        except (httpx.HTTPError, TimeoutError):
            return "unreachable"
        return None if answer.status_code == httpx.codes.OK else "not ready"

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


def _path(practice_id: UUID) -> str:
    return f"/internal/shards/{practice_id}"


def _note(event: str, fault: Exception, *, practice_id: UUID) -> None:
    status = fault.response.status_code if isinstance(fault, httpx.HTTPStatusError) else None
    _log.warning(event, practice_id=str(practice_id), fault=type(fault).__qualname__, status=status)
