"""One call over one connection: how requests are written and answers read, streamed, stopped and refused."""

import asyncio

import pytest
from upstream_stand import CHUNKED, OK, POST, answering, ask, fetch, parts, talk, until, whole, with_uvicorn

from gateway import exchange
from gateway.upstream import BrokenError


@pytest.mark.parametrize("tcp", [False, True])
def test_calls_in_a_row_share_one_connection(*, tcp: bool) -> None:
    async def work(upstream, service):
        return [await ask(upstream) for _ in range(5)], service.opened

    assert talk(answering(OK), work, tcp=tcp) == ([(200, b"ok")] * 5, 1)


def test_the_request_is_written_byte_by_byte_as_given() -> None:
    seen = []

    async def script(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(5))
        writer.write(OK)

    talk(script, lambda up, _: ask(up, "PUT", b"/a%2Fb?c=%20", headers=[POST, (b"x-a", b"\xe9 1")], body=b"hello"))
    head = b"PUT /a%2Fb?c=%20 HTTP/1.1\r\ncontent-length: 5\r\nx-a: \xe9 1\r\nhost: service\r\n\r\n"
    assert seen == [head + b"hello"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n", (200, b"abcde")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\n\r\n", (304, b"")),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", (200, b"")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, (200, b"ok")),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK, (200, b"ok")),
        (b"HTTP/1.1 421 Misdirected\r\ncontent-length: 1\r\n\r\n.", (421, b".")),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_an_answer_is_read_however_it_is_framed_and_split(answer: bytes, expected, piece: int) -> None:
    async def script(reader, writer):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for start in range(0, len(answer), piece):
                writer.write(answer[start : start + piece])
                await asyncio.sleep(0)

    async def work(upstream, service):
        return [await ask(upstream) for _ in range(2)], service.opened

    assert talk(script, work) == ([expected] * 2, 1)


def test_headers_come_as_they_are_and_trailers_and_1xx_are_none_of_them() -> None:
    answer = (
        b"HTTP/1.1 103 X\r\nA: 1\r\n\r\nHTTP/1.1 200 OK\r\nB: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nC: 3\r\n\r\n"
    )

    async def work(upstream, _):
        got = await upstream.call("GET", b"/", headers=())
        await whole(got)
        return list(got.headers)

    assert talk(answering(answer), work) == [(b"B", b"2"), (b"Transfer-Encoding", b"chunked")]


def test_a_head_call_ends_with_the_head() -> None:
    assert fetch(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"), "HEAD") == (200, b"")


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n"])
def test_the_end_of_the_connection_ends_an_answer_without_a_length(head: bytes) -> None:
    async def work(upstream, service):
        return [await ask(upstream) for _ in range(2)], service.opened

    assert talk(answering(head + b"all of it", keep=False), work) == ([(200, b"all of it")] * 2, 2)


@pytest.mark.parametrize(
    "closing", [b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", OK + OK, OK + b"?"]
)
def test_a_connection_that_is_closing_or_says_too_much_is_not_used_again(closing: bytes) -> None:
    async def work(upstream, service):
        return [await ask(upstream) for _ in range(3)], service.opened

    assert talk(answering(closing), work) == ([(200, b"ok")] * 3, 3)


def test_bytes_on_an_idle_connection_close_it() -> None:
    async def script(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")
        await reader.read()

    async def work(upstream, service):
        assert await ask(upstream) == (200, b"ok")
        await until(lambda: not upstream._idle)
        return await ask(upstream), service.opened

    assert talk(script, work) == ((200, b"ok"), 2)


BROKEN = [
    b"",
    b"HTTP/1.1 200",
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nshor",
    CHUNKED,
    CHUNKED + b"5\r\nhel",
    CHUNKED + b"5\r\nhello\r\n",
    CHUNKED + b"5\r\nhello\r\n0\r\n",
    CHUNKED + b"zz\r\n",
    CHUNKED + b"5\r\nhelloX",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nbad name: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\na: b\x00\r\n\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01 this is TLS",
    b"SSH-2.0-OpenSSH\r\n",
]


@pytest.mark.parametrize("answer", BROKEN)
def test_an_answer_that_is_cut_or_malformed_is_broken(answer: bytes) -> None:
    with pytest.raises(BrokenError):
        fetch(answering(answer, keep=False))


@pytest.mark.parametrize(
    "endless",
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nx: ",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        CHUNKED + b"1;",
        CHUNKED + b"0\r\nx: ",
    ],
)
def test_a_head_or_framing_without_end_is_broken_at_64_kb(endless: bytes) -> None:
    sent = 0

    async def script(reader, writer):
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(endless)
        more = (
            b"x: y\r\n" * 500 if endless.endswith(b"OK\r\n") else endless * 100 if b" 100 " in endless else b"x" * 4000
        )
        while True:
            writer.write(more)
            await writer.drain()
            sent += len(more)

    with pytest.raises(BrokenError):
        fetch(script)
    assert sent < 3_000_000


def test_a_large_head_below_the_limit_and_a_large_body_behind_it_are_fine() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 500000\r\nx-large: " + b"x" * 60_000 + b"\r\n\r\n"
    status, body = fetch(answering(head + b"b" * 500_000))
    assert (status, len(body)) == (200, 500_000)


def test_a_slow_reader_stops_the_service_and_keeps_memory_bounded() -> None:
    """10 MB; after the first bytes nobody reads for a while."""
    sent = 0

    async def script(reader, writer):
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x" * 10_000)
            await writer.drain()
            sent += 10_000
        await reader.read()

    async def work(upstream, _):
        answer = await upstream.call("GET", b"/", headers=())
        await asyncio.sleep(0.3)
        stopped_at, held = sent, answer.arrived_bytes
        return stopped_at, held, len(await whole(answer))

    stopped_at, held, length = talk(script, work)
    assert stopped_at < 3_000_000
    assert held <= exchange.HIGH_WATER_BYTES + 256 * 1024
    assert length == 10_000_000


@pytest.mark.parametrize("framing", [(b"content-length", b"500000"), (b"transfer-encoding", b"chunked")])
def test_a_body_streams_up(framing) -> None:
    async def app(scope, receive, send):
        size = 0
        while True:
            message = await receive()
            size += len(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(size).encode()})

    async def work(upstream):
        return [await ask(upstream, "POST", headers=[framing], body=parts(50, 10_000)) for _ in range(3)]

    assert with_uvicorn(app, work) == [(200, b"500000")] * 3


def test_a_service_that_does_not_read_stops_the_upload() -> None:
    taken: list[int] = []
    released = asyncio.Event()

    async def script(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await released.wait()
        await reader.readexactly(20_000_000)
        writer.write(OK)

    async def work(upstream, _):
        call = asyncio.create_task(
            ask(upstream, "POST", headers=[(b"content-length", b"20000000")], body=parts(2000, 10_000, taken))
        )
        await asyncio.sleep(0.3)
        stopped_at = len(taken)
        released.set()
        return stopped_at, await call

    stopped_at, answer = talk(script, work)
    assert stopped_at < 300
    assert answer == (200, b"ok")


@pytest.mark.parametrize("keep", [True, False])
def test_an_early_answer_ends_the_upload_and_the_connection(*, keep: bool) -> None:
    taken: list[int] = []

    async def script(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        if keep:
            await reader.read()

    async def work(upstream, service):
        headers = [(b"transfer-encoding", b"chunked")]
        answers = [await ask(upstream, "POST", headers=headers, body=parts(1_000_000, 100, taken)) for _ in range(2)]
        return answers, service.opened

    assert talk(script, work) == ([(413, b"no")] * 2, 2)
    assert len(taken) < 100_000


def test_a_fault_of_the_body_is_the_calls_and_cuts_the_connection() -> None:
    class GoneError(Exception):
        pass

    async def failing():
        yield b"x"
        raise GoneError

    async def work(upstream, service):
        with pytest.raises(GoneError):
            await ask(upstream, "POST", headers=[POST], body=failing())
        await until(lambda: service.open == 0)
        return await ask(upstream)

    assert talk(answering(OK), work) == (200, b"ok")
