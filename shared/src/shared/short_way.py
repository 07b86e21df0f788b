"""uvicorn's HTTP protocol with a short way: a request that is here as a whole is answered as a whole, past ASGI.

An application that knows a short way has a method `short_way`. It is shown each whole request first, and takes it or
leaves it; what it leaves goes uvicorn's own way, as does what comes slowly or is large, waits for `100 Continue`, is
HEAD, HTTP/1.0 or pipelined behind another one.

A client says nearly the same each time. Of a request that was taken before, the header lines are recognised by their
bytes and aren't parsed again: the same bytes behind the same method mean the same. See `_Recognised`.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable
from weakref import WeakKeyDictionary

from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared.context import REQUEST_ID_HEADER, Header
from shared.logs import describe_fault, get_logger
from shared.whole_request import WholeRequest

ONE_WRITE_BYTES = 16 * 1024
"""Up to here head and body are joined; beyond, copying costs more than handing both to the system."""
HOLD_S = 0.02
"""A request whose head is here waits this long for the rest of its body, before it goes the long way without it."""
MAX_HELD_BYTES = 64 * 1024
MAX_RECOGNISED = 4096
MAX_RECOGNISED_BYTES = 4096
"""Of header lines: 16 MB for all of them at most. A token has 600 bytes."""
_START = re.compile(
    rb"(GET|POST|PUT|PATCH|DELETE) (/[\w.~/-]{0,500}(?:\?[\w.~%&=+-]{0,1000})?) HTTP/1\.1\r\n"
    rb"(?:x-request-id: ([\w.-]{8,64})\r\n)?"
)
"""What changes with each request, where it needs no parser: the request line, and the id as the gateway writes it."""
_HEAD_END = b"\r\n\r\n"
_log = get_logger()


@runtime_checkable
class HasShortWay(Protocol):
    """An application that may answer whole requests itself."""

    def short_way(self, request: WholeRequest) -> bool:
        """Takes the request, to call `answer` or `go_on` once, or leaves it as it was: False."""


class _Recognised(NamedTuple):
    """What the header lines of a request mean that was parsed, taken and kept the connection open."""

    headers: Sequence[Header]
    request_id: bytes | None
    body_bytes: int
    known: Any


_Memory = dict[tuple[bytes, bytes, bool], _Recognised]
_memories: WeakKeyDictionary[HasShortWay, _Memory] = WeakKeyDictionary()
"""Each application's, by method, header lines and whether an id stood before them. What is remembered was taken by the
application, so that no stranger can fill it."""


class ShortWayProtocol(HttpToolsProtocol):
    """As uvicorn takes it for `http`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._short_way = self.app.short_way if isinstance(self.app, HasShortWay) else None
        self._memory = _memories.setdefault(self.app, {}) if isinstance(self.app, HasShortWay) else {}
        self._defaults: tuple[Sequence[Header], bytes] = ((), b"")
        self._held: bytearray | None = None
        self._hold_timer: asyncio.TimerHandle | None = None
        self._is_between = True
        self._taken: WholeRequest | None = None
        self._wire = self.transport
        self.extensions: dict[str, Any] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # narrower there, too
        """See asyncio."""
        super().connection_made(transport)
        self._wire = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._is_between and self._short_way is not None and self._take_recognised(data):
            return
        is_fresh, self._taken = self._is_between, None
        super().data_received(data)
        if self._held is not None:
            if len(self._held) > MAX_HELD_BYTES or self.transport.is_closing():
                self._let_go()
            elif self._hold_timer is None:  # many clients write head and body one after the other
                self._hold_timer = self.loop.call_later(HOLD_S, self._let_go)
        elif is_fresh and self._taken is not None and self._is_between:
            self._remember(data, self._taken)

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._is_between = False
        self._taken = None
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Holds a request back until its end or that of what has arrived, if it may go the short way."""
        if (
            self._short_way is None
            or self.expect_100_continue
            or not (self.cycle is None or self.cycle.response_complete)
            or self.parser.get_http_version() != "1.1"
            or self.parser.should_upgrade()
            or not self._is_plain()
        ):
            self._begin(b"")
        else:
            self._held = bytearray()
        self.headers = []  # trailers are collected there, and must not be taken for headers (RFC 9110, 6.5.1)

    def on_body(self, body: bytes) -> None:
        """More of the body."""
        if self._held is None:
            super().on_body(body)
        else:
            self._held += body

    def on_message_complete(self) -> None:
        """The request is whole: the moment for the short way."""
        self._is_between = True
        if self._held is None:
            super().on_message_complete()
            return
        held = self._let_go_of()
        headers = self.scope["headers"]
        sent_ids = [value for name, value in headers if name == REQUEST_ID_HEADER]
        request = WholeRequest(
            self,
            self.parser.get_method().decode("ascii"),
            self.url,
            cast("Any", headers),
            bytes(held),
            request_id=sent_ids[-1] if sent_ids else None,
            keep_alive=self.parser.should_keep_alive(),
        )
        if self._take(request):
            self._taken = request
            return
        self._begin(held)
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._let_go_of()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server stops: what is held back has begun, and is answered first."""
        if self._held is not None:
            self._let_go()
        super().shutdown()

    def _let_go_of(self) -> bytearray:
        """What was held back, which isn't any more."""
        held, self._held = self._held, None
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        return held or bytearray()

    def _let_go(self) -> None:
        """Lets a request that isn't whole yet go the long way, which has a body while it comes."""
        held = self._let_go_of()
        if self.transport.is_closing():
            return
        try:
            self._begin(held)
        except Exception as fault:  # noqa: BLE001 - outside the parser's callbacks nobody else would end the connection
            _log.error("unexpected_fault", **describe_fault(fault))
            self.send_400_response("Invalid HTTP request received.")

    def _is_plain(self) -> bool:
        """Whether the target is a path as it stands, with or without a query, and the answer has a body."""
        path = self.url.partition(b"?")[0]
        return path.startswith(b"/") and not (b"%" in path or b"#" in self.url) and self.parser.get_method() != b"HEAD"

    def _take(self, request: WholeRequest) -> bool:
        last, self.cycle = self.cycle, cast("RequestResponseCycle", request)
        try:
            if self._short_way is not None and self._short_way(request):
                return True
        except Exception as fault:  # noqa: BLE001 - whatever it was, the long way answers
            _log.error("unexpected_fault", **describe_fault(fault))
        self.cycle = last
        return False

    def _begin(self, body: bytes | bytearray) -> None:
        """Goes uvicorn's way with the head that was parsed last, and as much of the body."""
        super().on_headers_complete()
        self.cycle.transport = self._cycle_transport(self.scope["method"])
        if body:
            super().on_body(bytes(body))

    def _cycle_transport(self, method: str) -> asyncio.Transport:  # noqa: ARG002 - for those who look at it
        """Where a cycle of uvicorn's writes to."""
        return self.transport

    # what was said before

    def _take_recognised(self, data: bytes) -> bool:
        """Lets a request go the short way that is all of `data`, and whose header lines are known."""
        start = _START.match(data)
        if start is None or not (self.cycle is None or self.cycle.response_complete) or self.transport.is_closing():
            return False
        method, target, request_id = start.groups()
        end = data.find(_HEAD_END, start.end())
        if end < 0:  # the head isn't whole
            return False
        found = self._memory.get((method, data[start.end() : end], request_id is not None))
        body_at = end + len(_HEAD_END)
        if found is None or len(data) != body_at + found.body_bytes:
            return False
        self._stop_waiting()
        return self._take(
            WholeRequest(
                self,
                method.decode("ascii"),
                target,
                found.headers,
                data[body_at:],
                request_id=request_id or found.request_id,
                known=found.known,
            )
        )

    def _stop_waiting(self) -> None:
        """The next request is here."""
        self._unset_keepalive_if_required()

    def _remember(self, data: bytes, request: WholeRequest) -> None:
        """Keeps the meaning of the header lines of a request that was all of `data`."""
        start, end = _START.match(data), data.find(_HEAD_END)
        if start is None or request.known is None or not request.keep_alive:
            return
        length, body_bytes = end - start.end(), len(data) - end - len(_HEAD_END)
        if not 0 < length <= MAX_RECOGNISED_BYTES or body_bytes != _declared_bytes(request.headers):
            return
        method, _, id_before = start.groups()
        ids = [value for name, value in request.headers if name == REQUEST_ID_HEADER]
        if len(ids) > 1:
            return
        if len(self._memory) >= MAX_RECOGNISED:
            self._memory.clear()
        known_id = None if id_before or not ids else ids[0]
        self._memory[method, data[start.end() : end], id_before is not None] = _Recognised(
            request.headers, known_id, body_bytes, request.known
        )

    # for the request that went the short way

    def blank_scope(self) -> Scope:
        """A new request's scope, without what its head says."""
        scope: Scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "state": self.app_state.copy(),
            "extensions": self.extensions,
        }
        return scope

    def send_whole(self, lines: bytes, body: bytes, *, keep_alive: bool) -> None:
        """Writes an answer, and is ready for the next request."""
        defaults = self.server_state.default_headers
        if defaults is not self._defaults[0]:  # uvicorn makes a new list each second
            self._defaults = defaults, b"".join([b"%b: %b\r\n" % header for header in defaults])
        head = lines + self._defaults[1] + (b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
        if len(body) <= ONE_WRITE_BYTES:
            self._wire.write(head + body)
        else:
            self._wire.writelines((head, body))
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    def go_on(self, request: WholeRequest, app: ASGIApp) -> None:
        """Answers a request uvicorn's way after all. Others may have been pipelined behind it meanwhile."""
        cycle = RequestResponseCycle(
            scope=cast("Any", request.scope()),
            transport=self._cycle_transport(request.method),
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=request.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.body += request.body
        cycle.more_body = False
        cycle.message_event.set()
        cycle.disconnected = request.disconnected
        if cast("object", self.cycle) is request:
            self.cycle = cycle
        self._start_asgi_task(cycle, cast("Any", app))


def _declared_bytes(headers: Sequence[Header]) -> int:
    """How long a body the head declares; -1 if it is told otherwise than by one length."""
    if any(name == b"transfer-encoding" for name, _ in headers):
        return -1
    lengths = [value for name, value in headers if name == b"content-length"]
    return int(lengths[0]) if lengths else 0
