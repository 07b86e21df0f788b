"""Anything that uvicorn or a bad service may write is an answer or an error, and leaks nothing."""

import asyncio

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from upstream_stand import CHUNKED, OK, ask, talk, with_uvicorn

from gateway.upstream import UpstreamError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
STATUSES = st.sampled_from([200, 201, 204, 304, 400, 421, 500])


@FUZZ
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(["GET", "POST", "HEAD", "DELETE"]),
            STATUSES,
            st.lists(st.integers(0, 70_000), max_size=4),
            st.booleans(),
            st.lists(st.integers(0, 50_000), max_size=4),
            st.sampled_from(["none", "length", "chunked"]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_uvicorn_answers_arrives_as_it_was_sent(calls) -> None:
    async def app(scope, receive, send):
        _, status, sizes, declares, up, framing = calls[int(scope["path"][1:])]
        size = 0
        while True:
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        assert size == (sum(up) if framing != "none" else 0)
        bodyless = status in (204, 304)
        length = [(b"content-length", b"%d" % sum(sizes))] if declares and not bodyless else []
        await send({"type": "http.response.start", "status": status, "headers": length})
        for part in [] if bodyless else sizes:
            await send({"type": "http.response.body", "body": b"x" * part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def one(upstream, number: int) -> None:
        method, status, sizes, _, up, framing = calls[number]
        framings = {"none": [], "length": [(b"content-length", b"%d" % sum(up))]}
        headers = framings.get(framing, [(b"transfer-encoding", b"chunked")])

        async def body():
            for part in up:
                yield b"u" * part

        sent = body() if framing != "none" else b""
        got = await ask(upstream, method, b"/%d" % number, headers=headers, body=sent)
        assert got == (status, b"" if method == "HEAD" or status in (204, 304) else b"x" * sum(sizes))

    async def work(upstream):
        await asyncio.gather(*(one(upstream, number) for number in range(len(calls))))

    with_uvicorn(app, work)


_VALID = [
    OK,
    CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    b"HTTP/1.1 200 OK\r\n\r\nto the end",
]


@st.composite
def _streams(draw) -> tuple[list[bytes], bool]:
    """What a service writes, in pieces: good answers with bytes changed, left out or put in; cut somewhere; or junk."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(_VALID), min_size=1, max_size=3))))
    if draw(st.integers(0, 9)) == 0:
        data = bytearray(draw(st.binary(max_size=300)))
    for _ in range(draw(st.integers(0, 4))):
        if data:
            place = draw(st.integers(0, len(data) - 1))
            data[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    cut = data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data
    places = sorted(draw(st.lists(st.integers(0, len(cut)), max_size=6)))
    return [bytes(cut[a:b]) for a, b in zip([0, *places], [*places, len(cut)], strict=True)], draw(st.booleans())


@settings(FUZZ, max_examples=300)
@given(_streams())
@example(([OK, b"HTTP/1.1 200 OK\r\n\r\n"], True))
def test_whatever_a_bad_service_writes_is_an_answer_or_broken_and_leaks_nothing(stream) -> None:
    pieces, aborts = stream

    async def script(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        if aborts:
            await writer.drain()
            writer.transport.abort()

    async def work(upstream, _):
        for _ in range(3):
            try:
                async with asyncio.timeout(2):
                    status, _ = await ask(upstream)
            except UpstreamError:
                continue
            assert 200 <= status <= 999

    talk(script, work)
