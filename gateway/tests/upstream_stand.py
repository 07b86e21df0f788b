"""Hand-made upstreams that do one thing each, and a real uvicorn, for the tests of the services' client."""

import asyncio
import socket
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from unittest import mock

import uvloop

from gateway import connections
from gateway.connections import KeepAliveUpstream
from gateway.exchange import ArrivingAnswer
from gateway.upstream import Answer, BrokenError
from shared.server import make_server

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
POST = (b"content-length", b"5")

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Service:
    """A unix socket with a script for its connections."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.opened = 0
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self.open += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._script(reader, writer)
        finally:
            self.open -= 1
            writer.close()


def answering(*answers: bytes, keep: bool = True) -> Script:
    """One answer for each request without a body, the last one again and again."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(answers)
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            if not keep:
                return

    return script


def talk(script: Script, work, *, limit: int = 2, tcp: bool = False):
    """Runs `work(upstream, service)`; nothing may be left afterwards.

    A connection may take its time here: after a pause of the whole machine libuv looks at the clock before the sockets.
    """

    async def scenario():
        service = Service(script)
        with tempfile.TemporaryDirectory(prefix="up") as folder:
            if tcp:
                server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
                url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            else:
                server = await asyncio.start_unix_server(service.serve, f"{folder}/s")
                url = f"unix:{folder}/s"
            upstream = KeepAliveUpstream(url, connections=limit)
            try:
                async with asyncio.timeout(20):
                    result = await work(upstream, service)
                    await until(lambda: upstream.slots_in_use == 0)
                    assert not upstream._used
                    assert len(upstream._idle) <= limit
                    assert not upstream._waiting
            finally:
                await upstream.close()
                server.close()
            await until(lambda: service.open == 0)
            return result

    patient = mock.patch.object(connections, "CONNECT_TIMEOUT_S", 15)
    with patient, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(scenario())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


async def whole(answer: Answer) -> bytes:
    body = bytearray()
    try:
        while part := await answer.read():
            body += part
    finally:
        answer.close()
    return bytes(body)


async def ask(upstream, method: str = "GET", target: bytes = b"/x", headers=(), body=b"") -> tuple[int, bytes]:
    answer = await upstream.call(method, target, headers=headers, body=body)
    return answer.status, await whole(answer)


class Taken:
    """A Taker that can be awaited."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[ArrivingAnswer] = asyncio.get_running_loop().create_future()

    def take(self, answer: ArrivingAnswer) -> None:
        self.answer.set_result(answer)

    def fail(self) -> None:
        self.answer.set_exception(BrokenError())


async def ask_shortly(upstream: KeepAliveUpstream) -> tuple[int, bytes]:
    """The same as `ask`, by `begin`."""
    if not upstream._idle:
        upstream._ended(await upstream._take(), True)
    taken = Taken()
    assert upstream.begin("GET", b"/x", b"", body=b"", taker=taken)
    answer = await taken.answer
    return answer.status, await whole(answer)


def fetch(script: Script, method: str = "GET", **options) -> tuple[int, bytes]:
    return talk(script, lambda upstream, _: ask(upstream, method), **options)


async def parts(count: int, size: int, taken: list[int] | None = None):
    for number in range(count):
        if taken is not None:
            taken.append(number)
        yield b"x" * size
        await asyncio.sleep(0)


def with_uvicorn(app, work):
    async def scenario():
        with tempfile.TemporaryDirectory(prefix="up") as folder, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{folder}/s")
            listener.listen(100)
            server = make_server(app, host="", port=0)
            server.config.lifespan = "off"
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            upstream = KeepAliveUpstream(f"unix:{folder}/s", connections=3)
            try:
                await until(lambda: server.started)
                return await work(upstream)
            finally:
                await upstream.close()
                server.should_exit = True
                await serving
                assert upstream.slots_in_use == 0

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(scenario())
