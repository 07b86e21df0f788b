"""Questions the gateway asks a service on its own behalf: signed as `service:gateway`, answered in JSON."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson

from gateway.upstream import Upstream, UpstreamError
from shared.context import SERVICE_PREFIX, Caller, ContextSigner

MAX_ANSWER_BYTES = 8 * 1024 * 1024
_GATEWAY = Caller(role=f"{SERVICE_PREFIX}gateway")


class NoAnswerError(Exception):
    """The service couldn't be asked, was too slow, or answered nonsense."""


class Asker:
    """Asks one service. Its connections are its own, so that a flood of forwarded calls doesn't block it."""

    def __init__(self, upstream: Upstream, keys: Sequence[bytes]) -> None:
        self._upstream = upstream
        self._signer = ContextSigner(keys)

    async def get(self, target: str, *, timeout_s: float) -> tuple[int, Any]:
        """Status and decoded JSON of the answer, None for a status without one. Raises NoAnswerError."""
        try:
            async with asyncio.timeout(timeout_s):
                status, body = await self._read(target.encode())
            return status, orjson.loads(body) if body else None
        except (UpstreamError, TimeoutError, orjson.JSONDecodeError) as fault:
            raise NoAnswerError from fault

    async def _read(self, target: bytes) -> tuple[int, bytes]:
        answer = await self._upstream.call("GET", target, headers=self._signer.headers(_GATEWAY))
        body = bytearray()
        try:
            while chunk := await answer.read():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise NoAnswerError
        finally:
            answer.close()
        return answer.status, bytes(body)

    async def close(self) -> None:
        """Closes the connections."""
        await self._upstream.close()
