"""A client's body on its way through: the first part is kept so that a call may be repeated, the rest streams by."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.types import Receive

from gateway.exceptions import ClientGoneError
from gateway.headers import Head
from gateway.routes import KEPT_BYTES
from shared.context import Header
from shared.errors import BodyTooLargeError

LINGER_S = 1.0
"""How long a body is still read that nobody wants: closing at once could reset the connection before the answer is
read."""


class RequestBody:
    """One request's body. `fill` first; then it is either kept whole (`is_whole`) or has to be streamed."""

    def __init__(self, receive: Receive, head: Head, *, max_bytes: int) -> None:
        if head.content_length > max_bytes:
            raise BodyTooLargeError
        self._max_bytes = max_bytes
        self._receive = receive
        self._head = head
        self._kept = b""
        self._read_bytes = 0
        self.is_whole = not head.has_body
        self.is_read = self.is_whole
        self.read_at = 0.0
        """The loop's time at which the last of it came; 0 for a request without one."""

    async def fill(self) -> None:
        """Reads what may be kept. Raises BodyTooLargeError, ClientGoneError."""
        parts = []
        while not self.is_read and self._read_bytes <= KEPT_BYTES:
            parts.append(await self._next())
        self._kept = b"".join(parts)
        self.is_whole = self.is_read

    def framing(self) -> tuple[Header, ...]:
        """The header that tells the service where the body ends."""
        if not self._head.has_body:
            return ()
        if self.is_whole:
            return ((b"content-length", str(len(self._kept)).encode()),)
        if self._head.chunked:
            return ((b"transfer-encoding", b"chunked"),)
        return ((b"content-length", str(self._head.content_length).encode()),)

    def content(self) -> bytes | AsyncIterator[bytes]:
        """What is sent on. Only a whole body may be asked for twice."""
        return self._kept if self.is_whole else self._stream()

    async def _stream(self) -> AsyncIterator[bytes]:
        yield self._kept
        while not self.is_read:
            yield await self._next()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        self._read_bytes += len(part)
        if self._read_bytes > self._max_bytes:
            raise BodyTooLargeError
        if not message.get("more_body", False):
            self.is_read, self.read_at = True, asyncio.get_running_loop().time()
        return part


async def linger(receive: Receive) -> None:
    """Reads and drops what a client still sends, for a moment; its connection is to be closed afterwards."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while (await receive()).get("more_body", False):
                pass
