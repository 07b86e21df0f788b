"""One HTTP/1.1 connection to a service: writes a request, lets llhttp parse the answer, hands it on as it arrives.

Why not httpx: its transport scans its pool and awaits several layers for each call. With 32 clients and small GETs the
gateway needed 2,160 µs of CPU for a call with it and 40 µs with this, 440 against 19,900 calls/s (bench/hop.py).
Nothing here retries, counts slots or knows time limits: connections.py and the caller do.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

from gateway.upstream import Body, BrokenError, UnsendableError
from shared.context import Header

MAX_HEAD_BYTES = 64 * 1024
"""An answer's head with all 1xx before it; also what may come between two pieces of a body (chunk sizes, trailers)."""
HIGH_WATER_BYTES = 64 * 1024
"""From here on the service has to wait until somebody reads: one call holds this and one read of the socket at most."""
_HEADER_OVERHEAD_BYTES = len(": \r\n")
_FINAL = 200
_TARGET = re.compile(rb"[!-~\x80-\xff]+")
_HEAD_END = b"\r\n\r\n"
MAX_KNOWN_HEADS = 4096
MAX_KNOWN_BYTES = 1024
_FRAMED_BY = frozenset({b"content-length", b"transfer-encoding"})


class Taker(Protocol):
    """Who gets an answer without waiting for it; `take` or `fail` is called once."""

    def take(self, answer: "ArrivingAnswer") -> None:
        """The head is there, and as much of the body as came with it: as a rule all."""

    def fail(self) -> None:
        """The connection broke before there was an answer."""


@dataclass(slots=True)
class KnownHead:
    """What the bytes of an answer's head mean: services answer in the same words again and again."""

    status: int
    headers: Sequence[Header]
    body_bytes: int
    shown: bytes = b""
    """The lines that a client gets for it, once somebody has made them."""


class ArrivingAnswer:
    """See upstream.Answer. Ends with its connection's part in it: a closed one can't touch the next call's answer."""

    __slots__ = (
        "_connection",
        "_fault",
        "_parts",
        "_waiter",
        "arrived_bytes",
        "headers",
        "is_whole",
        "known",
        "status",
    )

    def __init__(self, status: int, headers: Sequence[Header], connection: "Connection") -> None:
        self.status = status
        self.headers = headers
        self.is_whole = False
        self.arrived_bytes = 0
        self.known: KnownHead | None = None
        self._parts: list[bytes] = []
        self._fault: BrokenError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._connection: Connection | None = connection

    async def read(self) -> bytes:
        """See upstream.Answer."""
        if not self._parts and self._connection:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.read_arrived()

    def read_arrived(self) -> bytes:
        """`read` without waiting. Raises BrokenError."""
        if self._fault and not self._parts:
            raise self._fault
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self.arrived_bytes = 0
        if self._connection:
            self._connection.resume()
        return data

    def close(self) -> None:
        """See upstream.Answer."""
        if self._connection:
            self._connection.abort()

    def add(self, data: bytes) -> None:
        """More of the body is here."""
        self._parts.append(data)
        self.arrived_bytes += len(data)
        self._wake()

    def end(self, fault: BrokenError | None = None) -> None:
        """Nothing more comes."""
        self.is_whole = fault is None
        self._fault = fault
        self._connection = None
        self._wake()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.Protocol):
    """Carries one exchange at a time; calls `ended` after each with whether it may carry another one."""

    def __init__(self, ended: Callable[["Connection", bool], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)  # there before anybody has the connection
        self._parser = httptools.HttpResponseParser(self)
        self._head: asyncio.Future[ArrivingAnswer] | None = None
        self._taker: Taker | None = None
        self._answer: ArrivingAnswer | None = None
        self._headers: list[Header] = []
        self._unread_bytes = 0
        self._is_busy = self._is_head_call = self._is_complete = self._is_early = False
        self._is_paused = self._keeps = False
        self._upload: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._is_over = False
        self.idle_since = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether it can't carry another call."""
        return self._is_over or self._transport.is_closing()

    # the caller's side

    async def exchange(self, method: str, head: bytes, body: Body) -> ArrivingAnswer:
        """Sends a request and returns when the answer's head is there. Raises BrokenError, and what `body` raises.

        A caller that is cancelled, or whose answer breaks, needn't do anything: the connection is cut.
        """
        arrival: asyncio.Future[ArrivingAnswer] = self._loop.create_future()
        self._head = arrival
        self._start(is_head_call=method == "HEAD")
        if isinstance(body, bytes):
            self._transport.write(head + body if body else head)
        else:
            self._transport.write(head)
            self._upload = self._loop.create_task(self._send(body, is_chunked=b"\r\ntransfer-encoding:" in head))
        try:
            return await arrival
        except BaseException:
            if self._head is arrival:  # a whole answer may have come in this moment, and the next call be on the way
                self.abort()
            raise

    def begin(self, request: bytes, taker: Taker) -> None:
        """Sends a whole request, which isn't HEAD, for a `taker` that needs no task to wait for the answer."""
        self._taker = taker
        self._start(is_head_call=False)
        self._transport.write(request)

    def _start(self, *, is_head_call: bool) -> None:
        self._is_busy, self._is_complete, self._is_early, self._answer = True, False, False, None
        self._is_head_call = is_head_call

    def resume(self) -> None:
        """Goes on reading after somebody took what had arrived."""
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Cuts the connection; whatever it carried is broken."""
        self._transport.abort()
        self._end(BrokenError())

    # the socket's side (asyncio.Protocol)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        is_fresh = self._taker is not None and self._answer is None and not self._unread_bytes
        if is_fresh and self._recognise(data):
            return
        self._unread_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._keeps = False
            if not self._is_complete:
                self.abort()
                return
        if self._is_complete or not self._is_busy:
            if is_fresh and self._keeps and self._answer:
                _remember(data, self._answer)
            self._finish()
        elif self._unread_bytes > MAX_HEAD_BYTES:
            self.abort()
        elif self._answer and self._taker:
            self._hand_over(self._answer)

    def _recognise(self, data: bytes) -> bool:
        """Whether this is a whole answer whose head is known: the parser would find nothing else in it."""
        end = data.find(_HEAD_END) + len(_HEAD_END)
        known = _known_heads.get(data[:end])
        if known is None or len(data) != end + known.body_bytes:
            return False
        self._answer = ArrivingAnswer(known.status, known.headers, self)
        self._answer.known = known
        self._answer.add(data[end:])
        self._is_complete = self._keeps = True
        self._finish()
        return True

    def eof_received(self) -> None:
        """See asyncio. The end of the connection ends an answer that says nothing about its length (RFC 9112, 6.3)."""
        if self._answer and not self._is_complete and not _FRAMED_BY & {name.lower() for name, _ in self._headers}:
            self._keeps = False
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever it was, it is over
        """See asyncio."""
        self._end(BrokenError())

    def pause_writing(self) -> None:
        """See asyncio."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """See asyncio."""
        if self._writable and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # the parser's side (httptools)

    def on_message_begin(self) -> None:
        """A second answer to one request, or one to none, isn't read: nothing after it could be trusted."""
        if self._is_complete or not self._is_busy:
            raise BrokenError
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which mustn't be taken for one (RFC 9110, 6.5.1)."""
        if self._answer is None:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there; 1xx ones are skipped."""
        if self._unread_bytes > MAX_HEAD_BYTES and _size_of(self._headers) > MAX_HEAD_BYTES:
            raise BrokenError
        status = self._parser.get_status_code()
        if status < _FINAL or not (self._taker or (self._head and not self._head.done())):
            return
        self._unread_bytes = 0
        self._answer = ArrivingAnswer(status, self._headers, self)
        if self._head:
            self._head.set_result(self._answer)
        self._is_early = self._stop_upload()
        if self._is_head_call:  # the parser can't be told that no body follows, so it isn't used again
            self._is_complete, self._keeps = True, False

    def on_body(self, body: bytes) -> None:
        """More of the body."""
        if self._answer is None or self._is_complete:
            raise BrokenError
        self._unread_bytes = 0
        self._answer.add(body)
        if self._answer.arrived_bytes > HIGH_WATER_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._answer is not None and not self._is_complete:
            self._is_complete = True
            self._keeps = self._parser.should_keep_alive()

    # how it ends

    def _finish(self) -> None:
        """The answer is whole. After an early one the service still waits for the rest: no other can follow."""
        if not (self._keeps and self._is_busy) or self._is_early or self._transport.is_closing():
            self._transport.abort()
            self._end(None)
            return
        self._unread_bytes = 0
        self._is_busy = self._keeps = False
        answer, self._answer, self._head = self._answer, None, None
        self.resume()
        if answer:
            answer.end()
        self._ended(self, True)
        if answer:
            self._hand_over(answer)

    def _end(self, fault: BrokenError | None) -> None:
        """The connection is over. Only the first call counts."""
        if self._is_over:
            return
        self._is_over = True
        self._stop_upload()
        self.resume_writing()
        if self._head and not self._head.done():
            self._head.set_exception(fault or BrokenError())
        answer, self._answer, self._head = self._answer, None, None
        if answer:
            answer.end(fault)
        self._ended(self, False)
        if answer:
            self._hand_over(answer)
        elif self._taker:
            taker, self._taker = self._taker, None
            taker.fail()

    def _hand_over(self, answer: ArrivingAnswer) -> None:
        taker, self._taker = self._taker, None
        if taker:
            taker.take(answer)

    # the request's body

    async def _send(self, body: AsyncIterator[bytes], *, is_chunked: bool) -> None:
        """Sends a body as fast as the service takes it; a fault of the body's becomes the call's."""
        try:
            async for part in body:
                if part:
                    self._transport.write(b"%x\r\n%b\r\n" % (len(part), part) if is_chunked else part)
                if self._writable:
                    await self._writable
            if is_chunked:
                self._transport.write(b"0\r\n\r\n")
        except Exception as fault:  # noqa: BLE001 - it is raised again, where the call is
            if self._head and not self._head.done():
                self._head.set_exception(fault)

    def _stop_upload(self) -> bool:
        """Whether something was still to be sent; it won't be."""
        upload, self._upload = self._upload, None
        if upload is None or upload.done():
            return False
        upload.cancel()
        return True


def _remember(data: bytes, answer: ArrivingAnswer) -> None:
    """Keeps what a head means, if `data` is the whole answer and nothing else."""
    end = data.find(_HEAD_END) + len(_HEAD_END)
    framing = [(name.lower(), value) for name, value in answer.headers if name.lower() in _FRAMED_BY]
    body_bytes = len(data) - end
    if end > MAX_KNOWN_BYTES or framing != [(b"content-length", b"%d" % body_bytes)]:
        return
    if answer.arrived_bytes != body_bytes:
        return
    if len(_known_heads) >= MAX_KNOWN_HEADS:
        _known_heads.clear()
    _known_heads[data[:end]] = answer.known = KnownHead(answer.status, answer.headers, body_bytes)


_known_heads: dict[bytes, KnownHead] = {}


def request_head(method: str, target: bytes, host_line: bytes, lines: bytes) -> bytes:
    """The bytes of a request up to its body, of header lines as `header_lines` makes them.

    Raises UnsendableError for a target that would read as something else. The lines come first, and the request's id
    first of them: services recognise what follows it (shared.short_way).
    """
    if not _TARGET.fullmatch(target):
        raise UnsendableError
    return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (method.encode(), target, lines, host_line)


def header_lines(headers: Sequence[Header]) -> bytes:
    """Headers as lines. Raises UnsendableError for one that would read as several."""
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    ends = len(headers)
    if lines.count(b"\n") != ends or lines.count(b"\r") != ends or b"\0" in lines:
        raise UnsendableError
    return lines


def _size_of(headers: Sequence[Header]) -> int:
    return sum(len(name) + len(value) + _HEADER_OVERHEAD_BYTES for name, value in headers)
