"""An answer leaves in one piece if it can, and no piece waits for another that isn't there yet."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
import uvicorn
from uvicorn.server import ServerState

from shared.server import make_server
from shared.whole_answers import WholeAnswers

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio", {"use_uvloop": True}


class App:
    """Answers with a head, and with each piece when it is let go."""

    def __init__(self, *pieces, headers=()):
        self.pieces = pieces
        self.headers = list(headers)
        self.go_on = asyncio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": (await receive())["type"] + ".complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        for number, piece in enumerate(self.pieces, start=1):
            if piece is None:
                await self.go_on.wait()
            else:
                last = number == len(self.pieces)
                await send({"type": "http.response.body", "body": piece, "more_body": not last})


@asynccontextmanager
async def served(app):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = make_server(app, host="", port=0)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        yield reader, writer
        writer.close()
        server.should_exit = True
        await task


LENGTH_4 = [(b"content-length", b"4")]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("later", [[], [b"body"]])
async def test_a_client_that_goes_away_between_head_and_body_is_no_fault(later):
    """What was kept back is dropped with its connection, and nothing complains."""
    complaints = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    config = uvicorn.Config(App(), lifespan="off")
    near, far = socket.socketpair()
    with far:
        transport, protocol = await loop.create_connection(
            lambda: WholeAnswers(config, server_state=ServerState(), app_state={}), sock=near
        )
        transport.abort()
        async with asyncio.timeout(5):
            while protocol in protocol.connections:  # noqa: ASYNC110 - uvicorn tells nobody
                await asyncio.sleep(0)
        for data in (b"head", *later):
            protocol.transport.write(data)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert far.recv(100) == b""
    assert complaints == []


async def test_head_and_body_come_together():
    async with served(App(b"body", headers=LENGTH_4)) as (reader, writer):
        for _ in range(3):
            writer.write(GET)
            assert (await reader.read(10_000)).endswith(b"\r\n\r\nbody")


async def test_a_head_does_not_wait_for_its_body():
    app = App(None, b"bo", None, b"dy", headers=LENGTH_4)
    async with served(app) as (reader, writer):
        writer.write(GET)
        assert (await reader.read(10_000)).endswith(b"\r\n\r\n")
        app.go_on.set()
        assert await reader.readexactly(4) == b"body"


async def test_pieces_keep_their_order():
    pieces = [f"{number};".encode() for number in range(1001)]
    async with served(App(*pieces, headers=[(b"connection", b"close")])) as (reader, writer):
        writer.write(GET)
        answer = await reader.read()
    sent = answer.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2]
    assert b"".join(sent) == b"".join(pieces)


async def test_pipelined_calls_are_answered_in_their_order():
    async with served(App(b"body", headers=LENGTH_4)) as (reader, writer):
        writer.write(GET * 5)
        for _ in range(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(4) == b"body"


async def test_an_answer_is_whole_when_the_connection_closes_behind_it():
    async with served(App(b"body", headers=[*LENGTH_4, (b"connection", b"close")])) as (reader, writer):
        writer.write(GET)
        assert (await reader.read()).endswith(b"\r\n\r\nbody")


async def test_a_request_that_is_no_http_is_answered():
    async with served(App()) as (reader, writer):
        writer.write(b"no http\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
