"""What the gateway needs of an HTTP client, and how one call can fail. The client itself is in connections.py."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from shared.context import Header

Body = bytes | AsyncIterator[bytes]


class UpstreamError(Exception):
    """The call failed; no complete answer came."""


class UnreachableError(UpstreamError):
    """No connection: nothing was sent."""


class BusyError(UpstreamError):
    """No connection was free in time: nothing was sent."""


class BrokenError(UpstreamError):
    """The connection broke or the answer is malformed: the service may have executed the call or not."""


class UnsendableError(UpstreamError):
    """The request can't be written as HTTP: nothing was sent."""


class Answer(Protocol):
    """A service's answer: the head is there, the body comes in pieces. Whoever got it closes it."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Sequence[Header]: ...

    @property
    def is_whole(self) -> bool:
        """Whether everything has arrived: the next `read` gives all that is left, without waiting."""

    @property
    def arrived_bytes(self) -> int:
        """How much of the body is here and wasn't read yet."""

    async def read(self) -> bytes:
        """What has arrived since the last call, at least one byte; empty at the end. Raises BrokenError."""

    def close(self) -> None:
        """Cuts the connection when the answer isn't whole. May be called twice."""


class Upstream(Protocol):
    """One service. Whole-call time limits are the caller's: it cancels."""

    async def call(
        self, method: str, target: bytes, *, headers: Sequence[Header], context: bytes = b"", body: Body = b""
    ) -> Answer:
        """Sends one request; `headers` must frame the body, `context` is further ones as lines of the head.

        Raises UpstreamError, and what reading `body` raises.
        """

    async def close(self) -> None:
        """Closes every connection."""
