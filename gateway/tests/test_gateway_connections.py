"""Who gets which connection: bounded, shared in order, given back whatever happens."""

import asyncio
import gc
import socket
from pathlib import Path

import pytest
from upstream_stand import OK, POST, answering, ask, parts, talk, until, whole

from gateway import connections
from gateway.connections import KeepAliveUpstream
from gateway.line import MAX_SAVED_RETRIES, RETRY_SHARE, Line
from gateway.upstream import BrokenError, BusyError, UnreachableError, UnsendableError
from shared.errors import UpstreamFailedError

pytestmark = pytest.mark.both_ways


def test_a_reused_connection_that_the_service_closes_is_broken_not_retried() -> None:
    """Whether a call may be repeated is the line's decision."""

    async def script(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")

    async def work(upstream, service):
        await ask(upstream)
        with pytest.raises(BrokenError):
            await ask(upstream)
        return await ask(upstream), service.opened

    assert talk(script, work) == ((200, b"ok"), 2)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("last", [b"", b"HTTP/1.1 2"])
def test_only_a_get_is_repeated_when_a_reused_connection_breaks(method: str, last: bytes) -> None:
    """The service has read the call, perhaps executed it, and closes before its answer's head is whole."""
    executed = 0

    async def script(reader, writer):
        nonlocal executed
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        if b"/x" in await reader.readuntil(b"\r\n\r\n"):
            executed += 1
            writer.write(last)

    async def work(upstream, service):
        line = Line(upstream)
        assert await whole(await line.call("GET", b"/", headers=(), body=b"")) == b"ok"
        content = {"headers": (), "body": b""} if method == "GET" else {"headers": [POST], "body": b"hello"}
        if method == "GET":
            assert await whole(await line.call(method, b"/x", **content)) == b"ok"
        else:
            with pytest.raises(UpstreamFailedError):
                await line.call(method, b"/x", **content)
        return executed, service.opened

    assert talk(script, work) == (1, 2 if method == "GET" else 1)


def test_repeating_stops_when_too_much_breaks() -> None:
    """Saved retries, then one for five calls: a service that breaks off always isn't asked twice for each."""
    calls = 100

    async def script(reader, writer):
        await reader.readuntil(b"\r\n\r\n")

    async def work(upstream, service):
        line = Line(upstream)
        for _ in range(calls):
            line.breaker.succeeded()  # which would end it much earlier
            with pytest.raises(UpstreamFailedError):
                await line.call("GET", b"/", headers=(), body=b"")
        return service.opened

    assert calls < talk(script, work) <= calls + MAX_SAVED_RETRIES + calls * RETRY_SHARE


def test_idle_connections_that_the_service_closed_are_not_used() -> None:
    async def script(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        await asyncio.sleep(0.01)

    async def work(upstream, service):
        results = []
        for _ in range(3):
            results.append(await ask(upstream))
            await until(lambda: not upstream._idle)
        return results

    assert talk(script, work) == [(200, b"ok")] * 3


def test_an_old_idle_connection_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "KEEP_IDLE_S", 0.05)

    async def work(upstream, service):
        await ask(upstream)
        await asyncio.sleep(0.1)
        await ask(upstream)
        return service.opened, len(upstream._idle)

    assert talk(answering(OK), work) == (2, 1)


async def _slowly(reader, writer):
    while True:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.01)
        writer.write(OK)


def test_connections_are_bounded_and_who_waits_is_served_in_order() -> None:
    done: list[int] = []

    async def one(upstream, number):
        assert await ask(upstream) == (200, b"ok")
        done.append(number)

    async def work(upstream, service):
        await asyncio.gather(*(one(upstream, number) for number in range(20)))
        return service.opened

    assert talk(_slowly, work, limit=2) == 2
    assert all(abs(number - place) <= 2 for place, number in enumerate(done))


def test_who_gets_no_connection_in_time_is_told_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "POOL_WAIT_S", 0.1)

    async def work(upstream, _):
        call = asyncio.create_task(ask(upstream))
        await asyncio.sleep(0.05)
        for _ in range(2):
            with pytest.raises(BusyError):
                await ask(upstream)
        call.cancel()
        await asyncio.wait({call})

    talk(_silent, work, limit=1)


def test_too_many_waiting_are_busy_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WAITING_PER_CONNECTION", 2)

    async def work(upstream, _):
        calls = [asyncio.create_task(ask(upstream)) for _ in range(3)]
        await asyncio.sleep(0.02)
        with pytest.raises(BusyError):
            await asyncio.wait_for(ask(upstream), 0.2)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)

    talk(_silent, work, limit=1)


async def _silent(reader, writer):
    await reader.read()


def test_a_service_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    async def scenario() -> None:
        for url in (f"unix:{tmp_path}/nothing", "http://127.0.0.1:1"):
            upstream = KeepAliveUpstream(url, connections=1)
            for _ in range(3):
                with pytest.raises(UnreachableError):
                    await ask(upstream)
            assert upstream.slots_in_use == 0

    asyncio.run(scenario())


def test_connecting_takes_a_second_at_most() -> None:
    """A full backlog: the kernel neither accepts nor refuses."""

    async def scenario() -> float:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
            port = listener.getsockname()[1]
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            upstream = KeepAliveUpstream(f"http://127.0.0.1:{port}", connections=1)
            started = asyncio.get_running_loop().time()
            with pytest.raises(UnreachableError):
                await ask(upstream)
            assert upstream.slots_in_use == 0
            for filler in fillers:
                filler.close()
            return asyncio.get_running_loop().time() - started

    assert 0.8 < asyncio.run(scenario()) < 1.5


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (b"/a b", ()),
        (b"/a\r\nx: y", ()),
        (b"", ()),
        (b"/", [(b"a", b"b\r\nc: d")]),
        (b"/", [(b"a", b"b\nc: d")]),
        (b"/", [(b"a\r", b"b")]),
        (b"/", [(b"a", b"b\0")]),
    ],
)
def test_what_would_read_as_another_request_is_never_sent(target: bytes, headers) -> None:
    async def work(upstream, service):
        with pytest.raises(UnsendableError):
            await ask(upstream, target=target, headers=headers)
        return service.opened

    assert talk(answering(OK), work) == 0


def test_cancelled_callers_leave_nothing_and_take_nobody_elses_answer() -> None:
    """At every moment of a call: waiting, connecting, sending, reading; each answer names its request."""

    async def script(reader, writer):
        while True:
            name = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
            await asyncio.sleep(hash(name) % 3 / 1000)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(name))
            if hash(name) % 2:
                await asyncio.sleep(0)
            writer.write(name)

    async def one(upstream, number: int) -> None:
        name = b"/%d" % number
        assert await ask(upstream, target=name) == (200, name)

    async def work(upstream, service):
        good = 0
        for start in range(0, 3000, 20):
            calls = [asyncio.create_task(one(upstream, number)) for number in range(start, start + 20)]
            for place, call in enumerate(calls):
                if place % 3:
                    asyncio.get_running_loop().call_later(place * 0.0004, call.cancel)
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}
            good += results.count(None)
        await until(lambda: service.open == len(upstream._idle))
        return good

    assert talk(script, work, limit=4) >= 1000


def test_a_call_cancelled_in_the_moment_of_its_answer_cuts_nobody_elses_connection() -> None:
    """The connection has gone to the next caller already when the first one's cancellation runs."""

    async def work(upstream, service):
        first, second = asyncio.create_task(ask(upstream)), asyncio.create_task(ask(upstream))
        await until(lambda: upstream._waiting)
        released = upstream._pass_on

        def cancel_first(connection):
            released(connection)
            first.cancel()

        upstream._pass_on = cancel_first
        results = await asyncio.gather(first, second, return_exceptions=True)
        return results[1], service.opened

    assert talk(_slowly, work, limit=1) == ((200, b"ok"), 1)


def test_an_answer_closed_half_read_cuts_its_connection_only() -> None:
    async def script(reader, writer):
        while True:
            target = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
            writer.write(OK if target == b"/small" else b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\nsome")

    async def work(upstream, service):
        large = await upstream.call("GET", b"/large", headers=())
        small = await upstream.call("GET", b"/small", headers=())
        large.close()
        large.close()
        assert await whole(small) == b"ok"
        small.close()
        return await ask(upstream, target=b"/small"), service.opened

    assert talk(script, work) == ((200, b"ok"), 2)


def test_closing_ends_calls_that_are_under_way() -> None:
    async def work(upstream, _):
        call = asyncio.create_task(ask(upstream))
        await until(lambda: upstream._used)
        await upstream.close()
        with pytest.raises(BrokenError):
            await call

    talk(_silent, work)


def test_no_exception_is_left_unretrieved() -> None:
    complaints: list[object] = []

    async def work(upstream, _):
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        for _ in range(10):
            with pytest.raises(BrokenError):
                await ask(upstream, "POST", headers=[POST], body=parts(5, 1))
        gc.collect()

    talk(answering(b"HTTP/1.1 2", keep=False), work)
    assert complaints == []
