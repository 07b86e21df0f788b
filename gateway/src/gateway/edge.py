"""What uvicorn leaves open at the edge: the size of a request's head, and clients that never finish what they began.

Only limits and their answers live here. A head that is refused never reaches the application.
"""

import asyncio
import http
from collections.abc import Callable
from typing import cast

from gateway.exceptions import HeadersTooLargeError, RequestTimeoutError, UriTooLongError
from gateway.headers import answer_headers
from gateway.presence import EXTENSION, Presence
from shared.context import Header
from shared.errors import JSON, MalformedRequestError, ServiceError
from shared.ids import request_id_of
from shared.short_way import ShortWayProtocol

MAX_URL_BYTES = 16 * 1024
MAX_HEADER_BYTES = 64 * 1024
MAX_HEADERS = 200
MAX_FRAMING_BYTES = 1024 * 1024
"""What chunk sizes, chunk extensions and trailers of one body may add up to: the parser keeps an endless trailer."""
HEAD_TIMEOUT_S = 10.0
"""A head must be complete within this time after its first byte, the first one after the connection was made."""
LINGER_S = 2.0
"""A body whose answer is out already may still come to its end: closing at once could cost the client the answer."""
STUCK_S = 15.0
"""A client that takes nothing of its answer for this long is cut off; closing would wait for it to take the rest."""
MAX_PIPELINED = 100
"""Requests that wait behind the one being answered: each takes 40 times the memory that its bytes do."""
_MAX_HEAD_BYTES = MAX_URL_BYTES + MAX_HEADER_BYTES
_VERSIONS = frozenset({"1.0", "1.1"})
_BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})
_CONTINUE = b"HTTP/1.1 100 "
_HEADER_OVERHEAD_BYTES = len(": \r\n")


class HeldHead:
    """Writes an answer's head together with the first of its body, which is when ASGI wants it to be sent.

    uvicorn writes them one by one: a system call and a packet more for each answer, 2 % of the CPU for a small one.
    """

    __slots__ = ("_close", "_head", "_is_sent", "_transport")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self._close = close
        self._head = b""
        self._is_sent = False

    def write(self, data: bytes) -> None:
        """See asyncio.Transport."""
        if self._is_sent or data.startswith(_CONTINUE):
            self._transport.write(data)
        elif not self._head:
            self._head = data
        else:
            self._is_sent = True
            self._transport.write(self._head + data)

    def close(self) -> None:
        """See asyncio.Transport."""
        if self._head and not self._is_sent:
            self._transport.write(self._head)
        self._close()

    def is_closing(self) -> bool:
        """See asyncio.Transport."""
        return self._transport.is_closing()


class EdgeProtocol(ShortWayProtocol):
    """uvicorn's HTTP protocol with limits. A well-behaved request pays a few comparisons for them."""

    _head_bytes = 0
    _read_bytes = 0
    _framing_bytes = 0
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None
    _stuck_timer: asyncio.TimerHandle | None = None
    _refusal: ServiceError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it too
        super().connection_made(transport)
        self._presence = Presence()
        self.extensions[EXTENSION] = self._presence
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_waiting()
        for timer in (self._linger_timer, self._stuck_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self._presence.end()

    def pause_writing(self) -> None:
        self._abort_unless_taken()
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._stuck_timer is not None:
            self._stuck_timer.cancel()
            self._stuck_timer = None
        if self.transport.is_closing():  # it took something, and may take no more
            self._abort_unless_taken()
        super().resume_writing()

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.is_closing():
            self._abort_unless_taken()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._abort_unless_taken()

    def _unset_keepalive_if_required(self) -> None:
        """Nothing: any byte would end the wait for the next request, and an empty line begins none."""

    def _stop_waiting(self) -> None:
        super()._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        if self._refusal:
            return
        # upper bounds that cost nothing: what was read since this head began, in whole reads
        self._read_bytes = len(data)
        self._head_bytes += len(data)
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._refusal or not self._in_head or self.transport.is_closing():
            self._stop_timer()
            if self._framing_bytes > MAX_FRAMING_BYTES and not self._refusal:
                self._refuse(MalformedRequestError())
        elif self._head_bytes > _MAX_HEAD_BYTES:  # one endless header: the parser tells nothing before its end
            self._refuse(HeadersTooLargeError())
        elif self._head_timer is None:
            self._start_timer()

    def _take_recognised(self, data: bytes) -> bool:
        if not super()._take_recognised(data):
            return False
        self._in_head = False
        self._framing_bytes = 0
        return True

    def on_message_begin(self) -> None:
        self._stop_waiting()
        self._in_head = True
        self._framing_bytes = 0
        self._head_bytes = 0  # most of this read may be what stands before it
        super().on_message_begin()
        self.scope["extensions"] = self.extensions

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._abandon(UriTooLongError())

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.headers) > MAX_HEADERS or (
            self._head_bytes + self._read_bytes > MAX_HEADER_BYTES
            and sum(len(name) + len(value) + _HEADER_OVERHEAD_BYTES for name, value in self.headers) > MAX_HEADER_BYTES
        ):
            self._abandon(HeadersTooLargeError())
        self._check_framing()
        if len(self.pipeline) >= MAX_PIPELINED:
            self._abandon(MalformedRequestError(f"At most {MAX_PIPELINED} requests may wait behind one another."))
        upgrade = self.parser.should_upgrade()
        if upgrade:
            self._ignore_upgrade()
        super().on_headers_complete()
        if upgrade:
            self.cycle.keep_alive = False

    def _cycle_transport(self, method: str) -> asyncio.Transport:
        if method == "HEAD":  # nothing would follow that could take the head along
            return self.transport
        return cast("asyncio.Transport", HeldHead(self.transport, self._close))

    def _check_framing(self) -> None:
        """A version that is spoken here, one host, no coding that nobody here undoes (RFC 9112, 2.3, 3.2 and 6.1)."""
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            self._abandon(MalformedRequestError("Only HTTP/1.1 and HTTP/1.0 are spoken here."))
        if version == "1.0":
            self.expect_100_continue = False  # it would take the 100 for its answer (RFC 9110, 10.1.1)
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and version != "1.0"):
            self._abandon(MalformedRequestError("A request names one host."))
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if codings and (len(codings) > 1 or codings[0].strip().lower() != b"chunked" or version == "1.0"):
            self._abandon(MalformedRequestError("The only transfer coding taken here is chunked."))

    def on_message_complete(self) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
        super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        self._framing_bytes -= len(body)
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words stay inside
        """What uvicorn calls when the parser gave up."""
        self._refuse(self._refusal or MalformedRequestError())

    def _ignore_upgrade(self) -> None:
        """There is nothing to upgrade to, and the parser reads nothing after such a head: neither body nor request."""
        sizes = {value for name, value in self.headers if name in _BODY_HEADERS}
        if sizes - {b"0"}:
            self._abandon(MalformedRequestError("A request with a body can't ask for another protocol."))

    def _abandon(self, error: ServiceError) -> None:
        """Makes the parser give up; `send_400_response` follows."""
        self._refusal = error
        raise error

    def _refuse(self, error: ServiceError) -> None:
        self._refusal = error
        self._stop_timer()
        if self.cycle is None or self.cycle.response_complete:
            self._answer(error)
        elif self.cycle.more_body:  # broken is the body of the request that is being answered
            if self.cycle.response_started or self.pipeline:
                self._close()
            else:
                self.cycle.disconnected = True  # what the application says from now on is too late
                self._answer(error)
        # else an earlier request is still being answered, and this one is when that is done

    def on_response_complete(self) -> None:
        self._stop_waiting()
        super().on_response_complete()
        if not self._is_between:  # the next request has begun: its head has a time of its own
            self._stop_waiting()
        if self.transport.is_closing():
            self._abort_unless_taken()
        if not self.cycle.response_complete:
            return
        if self._refusal:
            self._answer(self._refusal)
        elif self.cycle.more_body:
            self._linger_timer = self.loop.call_later(LINGER_S, self._close)

    def _answer(self, error: ServiceError) -> None:
        if not self.transport.is_closing():
            self.transport.write(_rendered(error))
            self._close()

    def _close(self) -> None:
        self.transport.close()
        self._abort_unless_taken()

    def _abort_unless_taken(self) -> None:
        """Closing waits until everything is sent: whoever takes nothing would keep the connection for ever."""
        if self._stuck_timer is None:
            self._stuck_timer = self.loop.call_later(STUCK_S, self.transport.abort)

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        self._refuse(RequestTimeoutError())


def _rendered(error: ServiceError) -> bytes:
    """The whole answer as bytes: there is no application to render it."""
    request_id = request_id_of(None)
    body = error.body(request_id.decode())
    headers: list[Header] = [
        (b"content-type", JSON),
        (b"content-length", b"%d" % len(body)),
        *answer_headers((), request_id),
        (b"connection", b"close"),
    ]
    reason = http.HTTPStatus(error.status).phrase.encode()
    lines = [b"HTTP/1.1 %d %s" % (error.status, reason), *(name + b": " + value for name, value in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
