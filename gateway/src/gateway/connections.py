"""An Upstream of our own: a bounded number of keep-alive connections to one service, over TCP or a unix socket.

Only who gets which connection is decided here; what happens on one is in exchange.py, what may be retried in line.py.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from gateway.exchange import Connection, Taker, header_lines, request_head
from gateway.upstream import Answer, Body, BusyError, UnreachableError
from shared.context import Header
from shared.service_urls import CONNECT_TIMEOUT_S, split_url

POOL_WAIT_S = 2.0
"""A call that gets no connection within this time is refused: the service has more to do than it can."""
WAITING_PER_CONNECTION = 10
"""More callers than this for each connection don't even wait."""
KEEP_IDLE_S = 60.0
"""Shorter than a service keeps an idle connection (shared.server.KEEP_ALIVE_S), so that it rarely closes one in use."""


class KeepAliveUpstream:
    """See upstream.Upstream. A slot is a connection in use, or the right to open one; who waits is served in order."""

    def __init__(self, url: str, *, connections: int) -> None:
        """`url` is `http://host:port` or `unix:/path`."""
        base_url, self._socket_path = split_url(url)
        parts = urlsplit(base_url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._host_line = b"host: %b\r\n" % parts.netloc.encode("idna" if not parts.netloc.isascii() else "ascii")
        self._max_connections = connections
        self._idle: deque[Connection] = deque()
        self._used: set[Connection] = set()
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._slots = 0
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop  # of the connections; Python 3.11 asks for the process's id each time

    @property
    def slots_in_use(self) -> int:
        """Calls that have a connection or are opening one."""
        return self._slots

    async def call(
        self, method: str, target: bytes, *, headers: Sequence[Header], context: bytes = b"", body: Body = b""
    ) -> Answer:
        """See upstream.Upstream."""
        head = request_head(method, target, self._host_line, header_lines(headers) + context)
        connection = self._take_idle() or await self._take()
        return await connection.exchange(method, head, body)

    def begin(self, method: str, target: bytes, lines: bytes, *, body: bytes, taker: Taker) -> Connection | None:
        """Sends a request on a connection that is free now, for `taker` to get the answer; None if there is none.

        `lines` are the head's, framing included. The connection is for whoever must cut the call short. Raises
        UnsendableError.
        """
        head = request_head(method, target, self._host_line, lines)
        connection = self._take_idle()
        if connection is not None:
            connection.begin(head + body, taker)
        return connection

    async def close(self) -> None:
        """See upstream.Upstream."""
        self._is_closed = True
        for connection in (*self._idle, *self._used):
            connection.abort()

    def _take_idle(self) -> Connection | None:
        """A connection that is there, if one is free: nearly always."""
        if self._slots >= self._max_connections or not self._idle:
            return None
        connection = self._unused()
        if connection is not None:
            self._slots += 1
            self._used.add(connection)
        return connection

    async def _take(self) -> Connection:
        """A connection nobody else uses. Raises BusyError, UnreachableError."""
        handed = None
        if self._slots < self._max_connections:
            self._slots += 1
        else:
            handed = await self._wait()
        connection = handed or self._unused()
        if connection is None:
            try:
                connection = await self._open()
            except BaseException:
                self._pass_on(None)
                raise
        self._used.add(connection)
        return connection

    def _unused(self) -> Connection | None:
        """The idle connection that was used last, so that the others grow old and are closed."""
        if not self._idle:
            return None
        oldest = self._loop.time() - KEEP_IDLE_S
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle.popleft().abort()
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed:
                return connection
            connection.abort()
        return None

    async def _wait(self) -> Connection | None:
        """Waits for a slot: with the connection that it had, if that can be used again."""
        if len(self._waiting) >= self._max_connections * WAITING_PER_CONNECTION:
            raise BusyError
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(POOL_WAIT_S):
                connection = await turn
        except BaseException as fault:
            if turn.done() and not turn.cancelled():  # it was given the slot in the moment it left
                self._pass_on(turn.result())
            else:
                with suppress(ValueError):  # it may have been skipped already
                    self._waiting.remove(turn)
            if isinstance(fault, TimeoutError):
                raise BusyError from fault
            raise
        return None if connection and connection.is_closed else connection

    async def _open(self) -> Connection:
        self._loop = loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if self._socket_path:
                    made = await loop.create_unix_connection(lambda: Connection(self._ended), self._socket_path)
                else:
                    made = await loop.create_connection(lambda: Connection(self._ended), self._host, self._port)
        except (OSError, TimeoutError) as fault:
            raise UnreachableError from fault
        connection: Connection = made[1]
        if self._is_closed or connection.is_closed:
            connection.abort()
            raise UnreachableError
        return connection

    def _ended(self, connection: Connection, reusable: bool) -> None:  # noqa: FBT001 - called once
        """An exchange is over, or a connection that carried none is gone."""
        if connection not in self._used:
            if connection in self._idle:
                self._idle.remove(connection)
            return
        self._used.remove(connection)
        self._pass_on(connection if reusable and not self._is_closed else None)

    def _pass_on(self, connection: Connection | None) -> None:
        """Gives slot and connection to whoever waits longest, else back."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        self._slots -= 1
        if connection and not connection.is_closed:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)
