"""HTTP load from Python: a list of requests to its end, and an open loop.

An open loop sends at a constant rate, whether or not the answers to earlier requests are in, and counts a latency from
the moment when a request was due: a stall delays all that were due meanwhile, as it delays real clients.
"""

import asyncio
import re
import selectors
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

from measured import Measured, of_latencies, percentile

Answer = tuple[int, bytes]
"""Status and body; status 0: the connection ended without an answer."""
Result = TypeVar("Result")

_HTTP_OK = range(200, 300)
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_OPEN_LOOP_CONNECTIONS = 64
_LAST_ANSWER_S = 30.0


@dataclass(frozen=True)
class OpenLoop:
    """What an open loop measured. `late_p99_ms`: how late the generator itself was with a request."""

    asked_per_second: float
    per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    late_p99_ms: float
    failed: int


def get(path: str, token: str) -> bytes:
    """A GET as bytes."""
    return f"GET {path} HTTP/1.1\r\nHost: gowebbo\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def send(method: str, path: str, body: bytes, token: str | None = None) -> bytes:
    """A request with JSON as bytes."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: gowebbo\r\n{authorization}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def ask_all(port: int, requests: Sequence[bytes], *, clients: int) -> list[Answer]:
    """All answers, in the requests' order."""
    answers: list[Answer] = [(0, b"")] * len(requests)
    _run(_to_the_end(port, requests, clients, lambda index, answer, _: answers.__setitem__(index, answer)))
    return answers


def run_all(port: int, requests: Sequence[bytes], *, clients: int) -> Measured:
    """Sends every request once; each client sends its next one when it has its answer."""
    statuses: list[int] = []
    latencies_s: list[float] = []

    def note(_: int, answer: Answer, latency_s: float) -> None:
        statuses.append(answer[0])
        latencies_s.append(latency_s)

    began = time.perf_counter()
    _run(_to_the_end(port, requests, clients, note))
    return of_latencies(latencies_s, seconds=time.perf_counter() - began, failed=_failed(statuses))


def open_loop(port: int, requests: Sequence[bytes], *, per_second: float, seconds: float) -> OpenLoop:
    """Sends these in turn at a constant rate."""
    return _run(_OpenLoop(port, requests, per_second, seconds).run())


def _failed(statuses: Sequence[int]) -> int:
    return sum(status not in _HTTP_OK for status in statuses)


def _run(load: Coroutine[Any, Any, Result]) -> Result:
    """On a loop that waits with select(2): epoll's and uvloop's timers are too coarse for a rate (1 ms)."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(load)


class _Connection(asyncio.Protocol):
    """A keep-alive connection to 127.0.0.1 with one request on its way at most."""

    def __init__(self) -> None:
        self._received = b""
        self._then: Callable[[Answer], None] | None = None
        self.lost = False

    @classmethod
    async def to(cls, port: int) -> Self:
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    def send(self, request: bytes, then: Callable[[Answer], None]) -> None:
        self._then = then
        self._transport.write(request)

    async def ask(self, request: bytes) -> Answer:
        answer = asyncio.get_running_loop().create_future()
        self.send(request, answer.set_result)
        return cast("Answer", await answer)

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """All answers come with their length."""
        self._received += data
        head_ends = self._received.find(b"\r\n\r\n") + 4
        length = _CONTENT_LENGTH.search(self._received)
        if head_ends > 4 and length and len(self._received) == head_ends + int(length[1]):  # noqa: PLR2004
            whole, self._received = self._received, b""
            self._answered((int(whole[9:12]), whole[head_ends:]))

    def connection_lost(self, _: Exception | None) -> None:
        self.lost = True
        self._answered((0, b""))

    def _answered(self, answer: Answer) -> None:
        then, self._then = self._then, None
        if then:
            then(answer)


async def _to_the_end(
    port: int, requests: Sequence[bytes], clients: int, note: Callable[[int, Answer, float], None]
) -> None:
    left = iter(enumerate(requests))

    async def client() -> None:
        connection = await _Connection.to(port)
        for index, request in left:
            if connection.lost:
                connection = await _Connection.to(port)
            sent = time.perf_counter()
            answer = await connection.ask(request)
            note(index, answer, time.perf_counter() - sent)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))


class _OpenLoop:
    """Requests that are due while every connection waits for an answer queue here; their latency runs already."""

    def __init__(self, port: int, requests: Sequence[bytes], per_second: float, seconds: float) -> None:
        self._port = port
        self._requests = requests
        self._per_second = per_second
        self._total = round(per_second * seconds)
        self._idle: list[_Connection] = []
        self._queue: deque[tuple[float, bytes]] = deque()
        self._statuses: list[int] = []
        self._latencies_s: list[float] = []
        self._late_s: list[float] = []
        self._all_answered = asyncio.Event()

    async def run(self) -> OpenLoop:
        self._idle = [await _Connection.to(self._port) for _ in range(_OPEN_LOOP_CONNECTIONS)]
        began = time.perf_counter()
        for number in range(self._total):
            due = began + number / self._per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            self._late_s.append(time.perf_counter() - due)
            self._queue.append((due, self._requests[number % len(self._requests)]))
            if self._idle:
                self._send_next(self._idle.pop())
        async with asyncio.timeout(_LAST_ANSWER_S):
            await self._all_answered.wait()
        taken_s = time.perf_counter() - began
        for connection in self._idle:
            connection.close()
        p50_ms, p99_ms, p999_ms = (percentile(self._latencies_s, percent) * 1000 for percent in (50, 99, 99.9))
        late_p99_ms = percentile(self._late_s, 99) * 1000
        failed = _failed(self._statuses)
        return OpenLoop(
            self._per_second, self._total / taken_s, p50_ms, p99_ms, p999_ms, late_p99_ms=late_p99_ms, failed=failed
        )

    def _send_next(self, connection: _Connection) -> None:
        due, request = self._queue.popleft()

        def answered(answer: Answer) -> None:
            self._statuses.append(answer[0])
            self._latencies_s.append(time.perf_counter() - due)
            if len(self._statuses) == self._total:
                self._all_answered.set()
            if self._queue and not connection.lost:
                self._send_next(connection)
            elif not connection.lost:
                self._idle.append(connection)

        connection.send(request, answered)
