"""The short way means what uvicorn's own way means, to the byte, whatever comes and however it is cut."""

import asyncio
import json
from itertools import pairwise

import pytest
import uvloop
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from shared import short_way
from shared.server import make_server
from shared.whole_answers import WholeAnswers
from shared.whole_request import WholeRequest

WAY = b"x-way"
REFUSAL = b"HTTP/1.1 400 "


class LongApp:
    """Answers with what it was asked."""

    def __init__(self):
        self.asked = []

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message["body"]
            more = message["more_body"]
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        said = self.said(scope["method"], scope["raw_path"] + query, scope["headers"], body)
        headers = [(b"content-length", b"%d" % len(said)), (WAY, b"long")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})

    def said(self, method, target, headers, body):
        self.asked.append((method, target))
        shown = sorted([name.decode("latin-1"), value.decode("latin-1")] for name, value in headers)
        return json.dumps([method, target.decode("latin-1"), shown, body.decode("latin-1")]).encode()


class ShortApp(LongApp):
    """The same by the short way."""

    def __init__(self, *, remembers=True, takes=True):
        super().__init__()
        self.remembers = remembers
        self.takes = takes
        self.ways = []

    def short_way(self, request: WholeRequest) -> bool:
        if not self.takes:
            return False
        self.ways.append("recognised" if request.known else "parsed")
        headers = [header for header in request.headers if header[0] != b"x-request-id"]
        if request.request_id:
            headers.append((b"x-request-id", request.request_id))
        said = self.said(request.method, request.target, headers, request.body)
        request.known = "known" if self.remembers else None
        request.answer(200, [(b"content-length", b"%d" % len(said)), (WAY, b"short")], said)
        return True


class Wire:
    """A transport that remembers."""

    def __init__(self):
        self.sent = b""
        self.is_closed = False

    def write(self, data):
        if not self.is_closed:
            self.sent += data

    def writelines(self, parts):
        self.write(b"".join(parts))

    def close(self):
        self.is_closed = True

    abort = close

    def is_closing(self):
        return self.is_closed

    def get_extra_info(self, name, default=None):
        return default

    def pause_reading(self):
        """Nothing: what is fed has been read."""

    resume_reading = pause_reading


async def fed(app, chunks, *, until_idle=6):
    """What a connection answers to these pieces, one after the other."""
    config = make_server(app, host="", port=0).config
    config.load()
    state = ServerState()
    protocol = WholeAnswers(config, server_state=state, app_state={})
    wire = Wire()
    protocol.connection_made(wire)
    for chunk in chunks:
        if wire.is_closed:
            break
        protocol.data_received(chunk)
        for _ in range(until_idle):
            await asyncio.sleep(0)
    for _ in range(until_idle * 5):
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    await asyncio.gather(*state.tasks, return_exceptions=True)
    return wire


def answers(app, *chunks) -> bytes:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(fed(app, chunks)).sent


def without_way(sent: bytes) -> bytes:
    return sent.replace(b"x-way: short\r\n", b"").replace(b"x-way: long\r\n", b"")


GET = b"GET /a?b=1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer y\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"


def test_what_was_said_before_is_recognised_and_means_the_same():
    app = ShortApp()
    sent = answers(app, GET, GET, POST, POST.replace(b"hello", b"howdy"), GET.replace(b"?b=1", b""))
    assert app.ways == ["parsed", "recognised", "parsed", "recognised", "recognised"]
    bodies = [json.loads(part.partition(b"\r\n\r\n")[2]) for part in sent.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert [body[3] for body in bodies] == ["", "", "hello", "howdy", ""]
    assert [body[1] for body in bodies] == ["/a?b=1", "/a?b=1", "/a", "/a", "/a"]
    assert bodies[0] == bodies[1]


def test_another_connection_recognises_it_too_but_another_application_never():
    app = ShortApp()
    answers(app, GET)
    answers(app, GET)
    assert app.ways == ["parsed", "recognised"]
    other = ShortApp()
    answers(other, GET)
    assert other.ways == ["parsed"]


@pytest.mark.parametrize(
    "request_",
    [
        GET.replace(b"GET", b"HEAD"),
        GET.replace(b"1.1", b"1.0"),
        GET.replace(b"host: x", b"host: x\r\nupgrade: h2c\r\nconnection: upgrade"),
        GET.replace(b"/a?b", b"/%61?b"),
        GET.replace(b"/a?b", b"http://x/a?b"),
        POST.replace(b"host: x", b"host: x\r\nexpect: 100-continue"),
    ],
)
def test_what_is_out_of_the_ordinary_goes_the_long_way(request_: bytes):
    app = ShortApp()
    sent = answers(app, request_)
    assert app.ways == []
    assert app.asked
    assert b"HTTP/1.1 200 OK" in sent


@pytest.mark.parametrize("cut", [1, 20, len(POST) - 6, len(POST) - 1])
def test_head_and_body_may_come_one_after_the_other(cut: int):
    app = ShortApp()
    sent = answers(app, POST, POST[:cut], POST[cut:])
    assert sent.count(b"200 OK") == 2
    assert app.ways == ["parsed", "parsed"]


@pytest.mark.parametrize("missing", range(1, 5))
def test_a_head_that_isnt_whole_is_never_recognised_however_long_its_body_is(missing: int):
    """Of every size: for one of them the part that is there is as long as the whole that was remembered."""
    for size in range(1, 120):
        whole = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: %03d\r\n\r\n" % size + b"b" * size
        cut = len(whole) - size - missing
        app = ShortApp()
        sent = answers(app, whole, whole[:cut], whole[cut:])
        assert app.asked == [("POST", b"/a")] * 2
        first, second = sent.split(b"HTTP/1.1 200 OK\r\n")[1:]
        assert first == second


@pytest.mark.parametrize("target", [b"http:///x", b"http://a:99999999/", b"http://a", b"http://[::1/"])
def test_a_target_that_is_none_is_refused_without_waiting_for_the_body(target: bytes):
    app = ShortApp()
    assert answers(app, POST.replace(b"/a", target)[:-5]).startswith(REFUSAL)
    assert answers(app, POST, POST.replace(b"/a", target)[:-5]).count(REFUSAL) == 1
    assert app.asked == [("POST", b"/a")]


def test_a_fault_while_letting_go_ends_the_connection(monkeypatch: pytest.MonkeyPatch):
    """Nobody else would: it happens in a timer."""
    monkeypatch.setattr(short_way, "HOLD_S", 0)

    def begin(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(WholeAnswers, "_begin", begin)
    assert answers(ShortApp(), POST[:-1]).startswith(REFUSAL)


def test_what_is_held_back_is_answered_when_the_server_stops():
    async def stopped_in_between() -> bytes:
        config = make_server(app, host="", port=0).config
        config.load()
        state, wire = ServerState(), Wire()
        protocol = WholeAnswers(config, server_state=state, app_state={})
        protocol.connection_made(wire)
        protocol.data_received(POST[:-5])
        protocol.shutdown()
        protocol.data_received(POST[-5:])
        await asyncio.gather(*state.tasks)
        assert wire.is_closed
        return wire.sent

    app = ShortApp()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert b"HTTP/1.1 200 OK" in runner.run(stopped_in_between())


def test_a_body_that_comes_slowly_or_is_large_goes_the_long_way(monkeypatch: pytest.MonkeyPatch):
    """Which has it while it comes."""
    app = ShortApp()
    large = POST.replace(b"5", b"70000") + b"x" * (70_000 - 5)
    sent = answers(app, large[:69_000], large[69_000:], POST)
    assert sent.count(b"x-way: long") == sent.count(b"x-way: short") == 1
    monkeypatch.setattr(short_way, "HOLD_S", 0)
    sent = answers(ShortApp(), POST[:-1], POST[-1:])
    assert sent.count(b"x-way: long") == 1


def test_what_was_held_back_ends_with_its_connection():
    app = ShortApp()
    assert answers(app, POST[:-1]) == b""
    assert app.asked == []


def test_what_isnt_taken_goes_the_long_way():
    app = ShortApp(takes=False)
    assert answers(app, GET, POST).count(b"x-way: long") == 2


def test_nothing_is_remembered_of_what_the_application_doesnt_want_to_find_again():
    app = ShortApp(remembers=False)
    answers(app, GET, GET)
    assert app.ways == ["parsed", "parsed"]


def test_a_fault_of_the_short_way_leaves_the_answer_to_the_long_way():
    class Faulty(ShortApp):
        def short_way(self, request):
            raise ZeroDivisionError

    assert b"x-way: long" in answers(Faulty(), GET)


def test_an_id_in_front_changes_nothing_about_the_rest():
    """As the gateway writes it: each request has another one."""
    app = ShortApp()
    one, two = (GET.replace(b"host", b"x-request-id: id-%d-abcdef\r\nhost" % n) for n in (1, 2))
    sent = answers(app, one, two, GET)
    assert app.ways == ["parsed", "recognised", "parsed"]
    assert sent.count(b"id-1-abcdef") == sent.count(b"id-2-abcdef") == 1
    twice = two.replace(b"host", b"x-request-id: id-3-abcdef\r\nhost")
    assert answers(ShortApp(), twice, twice).count(b"id-3-abcdef") >= 2


def test_of_too_many_different_ones_the_memory_begins_anew(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(short_way, "MAX_RECOGNISED", 3)
    app = ShortApp()
    requests = [GET.replace(b"Bearer y", b"Bearer %d" % n) for n in range(4)]
    answers(app, *requests, requests[3], requests[0])
    assert app.ways == ["parsed"] * 4 + ["recognised", "parsed"]
    assert len(short_way._memories[app]) <= 3


_LINES = st.sampled_from(
    [
        b"host: x\r\nauthorization: Bearer y\r\n",
        b"x-request-id: 0123456789abcdef\r\nhost: x\r\n",
        b"host: x\r\nx-request-id: 0123456789abcdef\r\n",
        b"Host: x\r\nConnection: keep-alive\r\n",
        b"host: x\r\nconnection: close\r\n",
        b"host: x\r\ntransfer-encoding: chunked\r\n",
        b"host: x\r\nexpect: 100-continue\r\n",
        b"host: x\r\n a: folded\r\n",
        b"host: x\r\na: \xe9\r\n",
        b"",
    ]
)
_REQUEST_LINES = st.sampled_from(
    [
        b"GET /a HTTP/1.1\r\n",
        b"GET /a?b=%20&c HTTP/1.1\r\n",
        b"POST /a HTTP/1.1\r\n",
        b"DELETE /b/c HTTP/1.1\r\n",
        b"HEAD /a HTTP/1.1\r\n",
        b"GET /a HTTP/1.0\r\n",
        b"GET http://x/a HTTP/1.1\r\n",
        b"GET /a#b HTTP/1.1\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\n",
        b"\r\nGET /a HTTP/1.1\r\n",
    ]
)
_BODIES = st.sampled_from([(b"", b""), (b"content-length: 0\r\n", b""), (b"content-length: 3\r\n", b"abc")])


@st.composite
def _requests(draw) -> bytes:
    framing, body = draw(_BODIES)
    lines = draw(_LINES)
    if b"chunked" in lines:
        framing, body = draw(st.sampled_from([b"", framing])), b"3\r\nabc\r\n0\r\n\r\n"
    written = bytearray(draw(_REQUEST_LINES) + lines + framing + b"\r\n" + body)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1]))):
        place = draw(st.integers(0, len(written) - 1))
        put_in = draw(st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b":", b"0", b"\0", b"GET / HTTP/1.1\r\n\r\n"]))
        written[place : place + draw(st.integers(0, 2))] = put_in
    return bytes(written)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(_requests(), min_size=1, max_size=4),
    st.lists(st.integers(0, 400), max_size=4),
    st.sampled_from([1, 2]),
)
@example([GET, GET + GET, GET], [], 2)
@example([POST, POST + b"\r\n", POST], [], 2)
@example([POST, POST[:-1], b"x" + POST], [], 1)
def test_both_ways_say_the_same_to_whatever_comes(requests: list[bytes], places: list[int], times: int) -> None:
    """A request that one reader ends elsewhere than another can be used to smuggle a second one in."""
    requests = [each for one in requests for each in [one] * times]
    cuts = sorted({place for place in places if place < len(b"".join(requests))})
    ends = [0]
    for one in requests:
        ends.append(ends[-1] + len(one))
    stream, pieces = b"".join(requests), sorted({*ends, *cuts})
    chunks = [stream[start:end] for start, end in pairwise(pieces)]
    short, long_ = ShortApp(), LongApp()
    said, meant = (without_way(answers(app, *chunks)) for app in (short, long_))
    assert short.asked == long_.asked
    if REFUSAL in meant:  # which overtakes answers that the long way hasn't begun yet
        assert REFUSAL in said
        said, meant = (sent.partition(REFUSAL)[0] for sent in (said, meant))
        assert said.startswith(meant)
    else:
        assert said == meant
