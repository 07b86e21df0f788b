"""The connection to a service behind a narrow interface. This is the only module that knows an HTTP client.

httpx's transport is used without its client: no default headers, no redirects, no cookies, no decoding; bytes pass as
they are. A call is cancelled at most once (a second cancel during the clean-up leaks pool slots, encode/httpx#3782).
"""

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Protocol, cast

import httpx

from shared.client import CONNECT_TIMEOUT_S, split_url
from shared.context import Header

POOL_WAIT_S = 2.0
"""A call that gets no connection within this time is refused: the service has more to do than it can."""
KEEP_IDLE_S = 60.0
"""Shorter than a service keeps an idle connection (shared.server.KEEP_ALIVE_S), so that it rarely closes one in use."""

Body = bytes | AsyncIterator[bytes]


class UpstreamError(Exception):
    """The call failed; no complete answer came."""


class UnreachableError(UpstreamError):
    """No connection: nothing was sent."""


class BusyError(UpstreamError):
    """No connection was free in time: nothing was sent."""


class BrokenError(UpstreamError):
    """The connection broke: the service may have executed the call or not."""


class UnsendableError(UpstreamError):
    """The request can't be written as HTTP: nothing was sent."""


class Answer(Protocol):
    """A service's answer: the head is there, the body comes in pieces. Whoever got it closes it."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Sequence[Header]: ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises BrokenError."""

    async def close(self) -> None:
        """Gives the connection back, or cuts it when the body wasn't read to its end."""


class Upstream(Protocol):
    """One service. Whole-call time limits are the caller's: it cancels."""

    async def call(self, method: str, target: bytes, *, headers: Sequence[Header], body: Body = b"") -> Answer:
        """Sends one request; `headers` must frame the body. Raises UpstreamError."""

    async def close(self) -> None:
        """Closes every connection."""


class _Streamed(httpx.AsyncByteStream):
    def __init__(self, body: AsyncIterable[bytes]) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._body:
            yield chunk


class _HttpxAnswer:
    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Sequence[Header] = response.headers.raw

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in cast("httpx.AsyncByteStream", self._response.stream):
                yield chunk
        except httpx.TransportError as fault:
            raise BrokenError from fault

    async def close(self) -> None:
        await self._response.aclose()


class HttpxUpstream:
    """An Upstream over httpx's connection pool, TCP or unix socket."""

    def __init__(self, url: str, *, connections: int) -> None:
        base_url, socket_path = split_url(url)
        self._url = httpx.URL(base_url)
        self._host = (b"host", self._url.netloc)
        limits = httpx.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEP_IDLE_S
        )
        self._transport = httpx.AsyncHTTPTransport(uds=socket_path, limits=limits, trust_env=False)

    async def call(self, method: str, target: bytes, *, headers: Sequence[Header], body: Body = b"") -> Answer:
        """See Upstream."""
        request = httpx.Request(
            method,
            self._url,
            headers=[self._host, *headers],
            stream=httpx.ByteStream(body) if isinstance(body, bytes) else _Streamed(body),
            # httpx would normalise the path and the query; `target` goes out byte by byte as it came in
            extensions={"target": target, "timeout": {"connect": CONNECT_TIMEOUT_S, "pool": POOL_WAIT_S}},
        )
        try:
            return _HttpxAnswer(await self._transport.handle_async_request(request))
        except (httpx.ConnectError, httpx.ConnectTimeout) as fault:
            raise UnreachableError from fault
        except httpx.PoolTimeout as fault:
            raise BusyError from fault
        except httpx.LocalProtocolError as fault:
            raise UnsendableError from fault
        except httpx.TransportError as fault:
            raise BrokenError from fault

    async def close(self) -> None:
        """See Upstream."""
        await self._transport.aclose()
