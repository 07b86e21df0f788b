"""Anything that uvicorn or a bad service may write is an answer or an error, and leaks nothing."""

import asyncio
from itertools import pairwise
from typing import NamedTuple

import h11
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from upstream_stand import CHUNKED, OK, ask, ask_shortly, talk, with_uvicorn

from gateway.upstream import BrokenError, UpstreamError

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


_PUT_IN = [
    b"",
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"0",
    b"1",
    b"f",
    b";",
    b":",
    b",",
    b"\0",
    b"\xff",
    b"Content-Length: 1\r\n",
]
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


class Written(NamedTuple):
    """An answer's bytes, its own and those before the end of which it can't be whole."""

    status: int
    body: bytes
    data: bytes
    ends_with_connection: bool


@st.composite
def _answers(draw) -> Written:
    """Any answer as RFC 9112 lets a service write it."""
    status = draw(st.sampled_from([200, 201, 204, 304, 404, 421, 503]))
    parts = draw(st.lists(st.binary(min_size=1, max_size=300), max_size=5)) if status not in (204, 304) else []
    body = b"".join(parts)
    framing = draw(st.sampled_from(["length", "chunked", "end"])) if status not in (204, 304) else "none"
    lines = draw(
        st.lists(st.sampled_from([b"X-A: 1", b"x-b:", b"Date: \t now ", b"Connection: keep-alive"]), max_size=3)
    )
    written = body
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        lines.append(draw(st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:CHUNKED"])))
        extension = draw(st.sampled_from([b"", b";a", b';a="b c"']))
        sizes = [draw(st.sampled_from([b"%x", b"%X", b"00%x"])) % len(part) for part in parts]
        chunks = [size + extension + b"\r\n" + part + b"\r\n" for size, part in zip(sizes, parts, strict=True)]
        written = b"".join(chunks) + b"0\r\n" + draw(st.sampled_from([b"", b"X-Trailer: 1\r\n"])) + b"\r\n"
    before = b"".join(draw(st.lists(st.sampled_from([b"HTTP/1.1 100 Continue\r\n\r\n", _HINTS]), max_size=2)))
    head = b"HTTP/1.1 %d Any words\r\n" % status + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    return Written(status, body, before + head + written, framing == "end")


_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


def _fetched(data: bytes, places: list[int]) -> tuple[int, bytes] | None:
    """What the client makes of these bytes, written in pieces and then ended; None if it finds them broken."""
    cuts = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]

    async def script(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for start, end in pairwise(cuts):
            writer.write(data[start:end])
            await asyncio.sleep(0)

    async def work(upstream, _):
        try:
            async with asyncio.timeout(5):
                return await ask(upstream)
        except BrokenError:
            return None

    return talk(script, work)


@settings(FUZZ, max_examples=200)
@given(_answers(), st.lists(st.integers(0, 3000), max_size=8), st.integers(0, 3000))
def test_any_good_answer_is_read_as_it_was_meant_and_a_cut_one_never(
    answer: Written, places: list[int], cut: int
) -> None:
    assert _fetched(answer.data, places) == (answer.status, answer.body)
    shortened = answer.data[: cut % len(answer.data)]
    got = _fetched(shortened, places)
    head_ends = len(answer.data) - len(answer.body) if answer.ends_with_connection else len(answer.data)
    if len(shortened) < head_ends:
        assert got is None
    else:
        assert got == (answer.status, shortened[head_ends:])


def _as_h11_reads(data: bytes) -> tuple[int, bytes] | None:
    """What another parser makes of an answer; None if it refuses it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/x", headers=[("host", "service")]))
    client.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        client.receive_data(data)
        client.receive_data(b"")
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None
    return status, body


@settings(FUZZ, max_examples=300)
@given(
    _answers(),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 2), st.sampled_from(_PUT_IN)), min_size=1, max_size=3),
    st.lists(st.integers(0, 3000), max_size=5),
)
def test_a_changed_answer_is_broken_or_what_another_parser_reads_too(answer: Written, changes, places) -> None:
    """Two that disagree about where an answer ends can be played off against each other."""
    data = bytearray(answer.data)
    for place, left_out, put_in in changes:
        start = place % (len(data) + 1)
        data[start : start + left_out] = put_in
    ours, theirs = _fetched(bytes(data), places), _as_h11_reads(bytes(data))
    assert ours is None or theirs is None or ours == theirs


def _one_after_the_other(answers: list[bytes], places: list[int], asking) -> list[tuple[int, bytes] | None]:
    """What a client makes of answers that come over as few connections as they allow."""
    left = list(answers)

    async def script(reader, writer):
        while left:
            await reader.readuntil(b"\r\n\r\n")
            data = left.pop(0)
            cuts = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
            for start, end in pairwise(cuts):
                writer.write(data[start:end])
                await asyncio.sleep(0)

    async def work(upstream, _):
        found = []
        for _ in answers:
            try:
                async with asyncio.timeout(0.1):
                    found.append(await asking(upstream))
            except (BrokenError, TimeoutError):  # what isn't whole is waited for
                found.append(None)
        return found

    return talk(script, work)


@settings(FUZZ, max_examples=100)
@given(
    _answers(),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 2), st.sampled_from(_PUT_IN)), min_size=1, max_size=2),
    st.one_of(st.just([]), st.lists(st.integers(0, 3000), max_size=3)),
)
def test_an_answer_whose_head_is_recognised_is_what_the_parser_reads(answer: Written, changes, places) -> None:
    """Twice as it is, then changed, then as it was."""
    assume(not answer.ends_with_connection)
    data = bytearray(answer.data)
    for place, left_out, put_in in changes:
        start = place % (len(data) + 1)
        data[start : start + left_out] = put_in
    stream = [answer.data, answer.data, bytes(data), answer.data]
    assert _one_after_the_other(stream, places, ask_shortly) == _one_after_the_other(stream, places, ask)


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
