"""A request that goes the short way (see shared.short_way), and how it is answered."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, cast

import httptools
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from shared.context import REQUEST_ID_HEADER, Header

if TYPE_CHECKING:
    from shared.short_way import ShortWayProtocol

BODYLESS = frozenset({204, 304})


class _Unawaited:
    """In the place of uvicorn's event, for which nobody waits on the short way."""

    def set(self) -> None:
        """Nothing."""


class WholeRequest:
    """A request that is here as a whole, until it is answered. To uvicorn's protocol it is the cycle under way."""

    __slots__ = (
        "_protocol",
        "body",
        "disconnected",
        "headers",
        "keep_alive",
        "known",
        "method",
        "request_id",
        "response_complete",
        "target",
    )
    message_event = _Unawaited()
    more_body = False
    response_started = False

    def __init__(
        self,
        protocol: "ShortWayProtocol",
        method: str,
        target: bytes,
        headers: Sequence[Header],
        body: bytes,
        *,
        request_id: bytes | None,
        keep_alive: bool = True,
        known: Any = None,
    ) -> None:
        self._protocol = protocol
        self.method = method
        self.target = target
        self.headers = headers
        """With names in lower case; not all need hold the request id."""
        self.request_id = request_id
        """As it was sent."""
        self.body = body
        self.keep_alive = keep_alive
        self.known = known
        """Whatever the application wants to find again at a request with the same header lines."""
        self.response_complete = False
        self.disconnected = False

    @property
    def client(self) -> tuple[str, int] | None:
        """The peer's address, None over a unix socket."""
        return self._protocol.client

    @property
    def extensions(self) -> dict[str, Any]:
        """As in ASGI's scope."""
        return self._protocol.extensions

    @property
    def may_answer(self) -> bool:
        """Whether an answer can leave at once: its client is there, and took the last one."""
        return not (self.disconnected or self._protocol.flow.write_paused)

    def split_target(self) -> tuple[bytes, bytes]:
        """Path, as it was sent, and query."""
        path, _, query = self.target.partition(b"?")
        return path, query

    def scope(self) -> Scope:
        """ASGI's, complete."""
        url = httptools.parse_url(self.target)
        scope = self._protocol.blank_scope()
        others = [header for header in self.headers if header[0] != REQUEST_ID_HEADER]
        scope["headers"] = [*others, (REQUEST_ID_HEADER, self.request_id)] if self.request_id else others
        scope.update(method=self.method, path=url.path.decode("ascii"), raw_path=url.path)
        scope["query_string"] = url.query or b""
        return scope

    def answer(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """The whole answer. Its length is said here if `headers` don't. A client that has gone doesn't get it."""
        lines = [b"%b: %b\r\n" % header for header in headers]
        if status not in BODYLESS and not any(name == b"content-length" for name, _ in headers):
            lines.append(b"content-length: %d\r\n" % len(body))
        self.answer_lines(STATUS_LINE[status] + b"".join(lines), body)

    def answer_lines(self, lines: bytes, body: bytes) -> None:
        """The same for an answer whose status line and header lines are ready, the length among them."""
        self.response_complete = True
        if not (self.disconnected or self._protocol.transport.is_closing()):
            self._protocol.send_whole(lines, body, keep_alive=self.keep_alive)

    def go_on(self, app: ASGIApp) -> None:
        """Lets `app` answer: the short way ended before there was an answer."""
        self._protocol.go_on(self, app)

    def spawn(self, answering: Coroutine[Any, Any, None]) -> None:
        """Runs what will answer, and calls `left` at its end: a task that the server waits for when it stops."""
        self._protocol.tasks.add(self._protocol.loop.create_task(answering))

    def left(self) -> None:
        """The running task is the one of `spawn`, and at its end."""
        self._protocol.tasks.discard(cast("asyncio.Task[None]", asyncio.current_task(self._protocol.loop)))

    def cut(self) -> None:
        """Ends the connection without an answer."""
        self._protocol.transport.abort()
