"""tenant-service, as far as this service needs it: make a practice's shard, release one, be ready. HTTP only here."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import orjson

from auth_service.exceptions import ExportRefusedError, ShardUnavailableError
from shared.client import async_service_client
from shared.logs import get_logger
from shared.shards import ShardName

_RETRY_AFTER_S = 5
_RELEASE_TIMEOUT_S = 10.0
_READY_TIMEOUT_S = 2.0
_ERASE_TIMEOUT_S = 60.0
"""Dropping a database waits for a checkpoint."""
_EXPORT_TIMEOUT_S = 14.0
_log = get_logger()


class Erased(NamedTuple):
    """What there was."""

    backup_files: int


class Exported(NamedTuple):
    """Where the archive is, and how many rows are in it."""

    path: str
    rows: int


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

    async def erase(self, practice_id: UUID) -> Erased:
        """Destroys all data of a closed practice, for good. Raises ShardUnavailableError."""
        try:
            async with asyncio.timeout(_ERASE_TIMEOUT_S):
                answer = await self._client.post(f"{_path(practice_id)}/erase", timeout=_ERASE_TIMEOUT_S)
            answer.raise_for_status()
            return Erased(int(answer.json()["backup_files"]))
        except (httpx.HTTPError, TimeoutError, ValueError, KeyError, TypeError) as fault:
            _note("shard_not_erased", fault, practice_id=practice_id)
            raise ShardUnavailableError(retry_after_s=_RETRY_AFTER_S) from fault

    async def export(
        self, practice_id: UUID, *, to: str, practice: dict[str, object], audit: Sequence[dict[str, object]]
    ) -> Exported:
        """Has the practice's data written into a folder. Raises ExportRefusedError, ShardUnavailableError."""
        content = orjson.dumps({"to": to, "practice": practice, "audit": audit}, default=str)
        headers = {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(_EXPORT_TIMEOUT_S):
                answer = await self._client.post(
                    f"{_path(practice_id)}/export", content=content, headers=headers, timeout=_EXPORT_TIMEOUT_S
                )
            if answer.status_code in {httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY}:
                raise ExportRefusedError(_told(answer.json()))
            answer.raise_for_status()
            return Exported(**answer.json())
        except (httpx.HTTPError, TimeoutError, ValueError, KeyError, TypeError) as fault:
            _note("shard_not_exported", fault, practice_id=practice_id)
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


def _told(document: dict[str, Any]) -> str:
    """Why tenant-service refused."""
    faults = document.get("errors") or ()
    return " ".join([str(document["detail"]), *(f"{fault['field']} {fault['message']}" for fault in faults)])


def _path(practice_id: UUID) -> str:
    return f"/internal/shards/{practice_id}"


def _note(event: str, fault: Exception, *, practice_id: UUID) -> None:
    status = fault.response.status_code if isinstance(fault, httpx.HTTPStatusError) else None
    _log.warning(event, practice_id=str(practice_id), fault=type(fault).__qualname__, status=status)
