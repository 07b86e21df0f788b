"""One connection by itself: what libpq reports; what an error, or a caller that goes away, leaves behind."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import psycopg2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from patient_practices import SHARD_KEY, Practice, ShardServer, eventually

from patient_service import shard_connection
from patient_service.shard_connection import ConnectError, FutureRows, Prepared, ShardConnection
from shared.shards import shard_password

pytestmark = pytest.mark.anyio


ECHO = Prepared("echo", "PREPARE echo (text) AS SELECT $1", "EXECUTE echo (%(said)s)")


def target_of(shard_server: ShardServer, practice: Practice, **changes: Any) -> dict[str, Any]:
    postgres = shard_server.postgres
    address = {"host": postgres.host, "hostaddr": postgres.host, "port": postgres.port}
    role = {"user": practice.database, "password": shard_password(SHARD_KEY, practice.database)}
    return {**address, **role, "dbname": practice.database, **changes}


@pytest.fixture
async def connection(
    shard_server: ShardServer, practice: Practice, anyio_backend: object
) -> AsyncIterator[ShardConnection]:
    opened = await ShardConnection.connect(target_of(shard_server, practice))
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("changes", "sqlstate"),
    [
        ({"password": "wrong"}, "28P01"),
        ({"user": "nobody-like-this"}, "28P01"),
        ({"dbname": "no_such_database"}, "3D000"),
        ({"port": 1}, None),
        ({"sslmode": "require"}, None),
        ({"sslmode": "no-such-mode"}, None),
    ],
)
async def test_a_refused_connection_tells_the_sqlstate(
    shard_server: ShardServer, practice: Practice, changes: dict[str, Any], sqlstate: str | None
):
    with pytest.raises(ConnectError) as refused:
        await ShardConnection.connect(target_of(shard_server, practice, **changes))
    assert refused.value.sqlstate == sqlstate


async def test_a_role_cannot_enter_another_practices_database(
    shard_server: ShardServer, practice: Practice, other_practice: Practice
):
    with pytest.raises(ConnectError) as refused:
        await ShardConnection.connect(target_of(shard_server, practice, dbname=other_practice.database))
    assert refused.value.sqlstate == "42501"


async def test_a_server_that_never_answers_is_given_up_by_cancelling(shard_server: ShardServer, practice: Practice):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = target_of(shard_server, practice, port=silent.getsockname()[1])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await ShardConnection.connect(target)


async def test_text_comes_as_utf8_bytes(connection: ShardConnection):
    assert await connection.fetch("SELECT %(said)s::text, 5", {"said": "Zoë %"}) == [("Zoë %".encode(), 5)]


async def test_an_error_leaves_the_connection_usable_and_shows_no_value(connection: ShardConnection):
    with pytest.raises(psycopg2.Error) as refused:
        await connection.fetch("SELECT %s::integer", ("a patient's name",))
    assert refused.value.pgcode == "22P02"
    assert "name" not in str(refused.value)
    assert not connection.busy
    assert await connection.fetch("SELECT 1", ()) == [(1,)]


async def test_a_statement_that_cannot_be_sent_leaves_the_connection_usable(connection: ShardConnection):
    with pytest.raises(KeyError):
        await connection.fetch("SELECT %(missing)s", {})
    with pytest.raises(UnicodeEncodeError):
        await connection.fetch("SELECT %s", ("\ud800",))
    assert await connection.fetch("SELECT 1", ()) == [(1,)]


async def test_large_statements_and_answers_pass_whole(connection: ShardConnection):
    long = "ä" * 3_000_000  # more than a socket's buffers hold, in both directions
    assert await connection.fetch("SELECT %s::text", (long,)) == [(long.encode(),)]


async def test_an_abandoned_statement_keeps_the_connection_busy_until_it_ended(connection: ShardConnection):
    call = asyncio.create_task(connection.fetch("SELECT 'abandoned' FROM pg_sleep(0.1)", ()))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert connection.busy
    await connection.settle()
    assert not connection.busy
    assert await connection.fetch("SELECT 'mine'", ()) == [(b"mine",)]


@pytest.mark.parametrize("outcome", ["SELECT 1/(random()*0)::int FROM pg_sleep(0.1)", "SELECT pg_sleep(30)"])
async def test_an_abandoned_statement_that_fails_or_goes_on_does_no_harm(connection: ShardConnection, outcome: str):
    closed: list[bool] = []
    connection.on_close = lambda: closed.append(True)
    call = asyncio.create_task(connection.fetch(outcome, ()))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await connection.settle()
    assert not connection.busy
    assert closed == ([True] if "30" in outcome else [])


async def test_an_interrupted_settling_closes_the_connection(connection: ShardConnection):
    call = asyncio.create_task(connection.fetch("SELECT pg_sleep(30)", ()))
    await asyncio.sleep(0)
    call.cancel()
    settling = asyncio.create_task(connection.settle())
    await asyncio.sleep(0.01)
    settling.cancel()
    await asyncio.gather(call, settling, return_exceptions=True)
    assert connection.closed


async def test_a_statement_without_an_answer_ends_by_our_own_limit(
    connection: ShardConnection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shard_connection, "STATEMENT_LIMIT_S", 0.1)
    with pytest.raises(psycopg2.OperationalError) as lost:
        await connection.fetch("SELECT pg_sleep(4)", ())
    assert lost.value.pgcode is None
    assert connection.closed


async def test_closing_ends_a_statement_in_progress(connection: ShardConnection):
    call = asyncio.create_task(connection.fetch("SELECT pg_sleep(4)", ()))
    await asyncio.sleep(0)
    connection.close()
    connection.close()
    with pytest.raises(psycopg2.OperationalError):
        await call
    with pytest.raises(psycopg2.Error):
        await connection.fetch("SELECT 1", ())


async def test_a_notice_while_idle_is_no_answer(
    connection: ShardConnection, shard_server: ShardServer, practice: Practice
):
    await connection.fetch("SELECT 1 FROM set_config('client_min_messages', 'debug1', false)", ())
    shard_server.run(f"ALTER ROLE {practice.database} SET work_mem = '1MB'")
    shard_server.run("SELECT pg_reload_conf()")
    assert await connection.fetch("SELECT 'mine'", ()) == [(b"mine",)]


async def test_a_session_that_the_server_ends_is_known_to_be_closed(
    connection: ShardConnection, shard_server: ShardServer, practice: Practice
):
    closed = asyncio.Event()
    connection.on_close = closed.set
    shard_server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (practice.database,))
    await eventually(closed.is_set)
    assert connection.closed


@pytest.mark.parametrize("arrives", [b"", b"T\0\0\0", b"N\0\0\0\x0cSNOTICE\0\0"])
@pytest.mark.parametrize("is_busy", [True, False])
async def test_a_connection_that_is_reset_ends_at_once(
    shard_server: ShardServer, practice: Practice, arrives: bytes, *, is_busy: bool
):
    """Also if something arrived just before: libuv tells of both at once, and never again."""
    loop, closed = asyncio.get_running_loop(), asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        opening = asyncio.create_task(
            ShardConnection.connect(target_of(shard_server, practice, port=listener.getsockname()[1]))
        )
        near, _ = await loop.sock_accept(listener)
        near.setblocking(False)
        with near, socket.create_connection((shard_server.postgres.host, shard_server.postgres.port)) as far:
            far.setblocking(False)
            relays = [asyncio.create_task(_relay(near, far)), asyncio.create_task(_relay(far, near))]
            connection = await opening
            connection.on_close = closed.set
            for relay in relays:
                relay.cancel()
            await asyncio.wait(relays)
            call = asyncio.create_task(connection.fetch("SELECT 1", ())) if is_busy else None
            if call:
                assert b"SELECT 1" in await loop.sock_recv(near, 1000)
            near.send(arrives)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    async with asyncio.timeout(shard_connection.STATEMENT_LIMIT_S / 2):
        await closed.wait()
        if call:
            with pytest.raises(psycopg2.OperationalError):
                await call


async def _relay(source: socket.socket, sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, 65536):
        await loop.sock_sendall(sink, data)


async def test_the_loop_goes_on_while_a_frozen_server_is_asked_to_cancel(
    shard_server: ShardServer, practice: Practice, monkeypatch: pytest.MonkeyPatch
):
    """psycopg2's own cancel() would hold the interpreter's lock as long as the server is silent."""
    monkeypatch.setattr(shard_connection, "CANCEL_LIMIT_S", 0.2)
    async with _silent_after_login(shard_server) as port:
        connection = await ShardConnection.connect(target_of(shard_server, practice, port=port))
        call = asyncio.create_task(connection.fetch("SELECT pg_sleep(2)", ()))
        await asyncio.sleep(0)
        call.cancel()
        settling = asyncio.create_task(connection.settle())
        turns = 0
        while not settling.done():
            turns += 1
            await asyncio.sleep(0.01)
        assert turns > 10
        assert connection.closed
        await asyncio.gather(call, return_exceptions=True)


@contextlib.asynccontextmanager
async def _silent_after_login(shard_server: ShardServer) -> AsyncIterator[int]:
    """A port that leads to the server for the first connection, and accepts others without a word."""
    first = True

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        if not first:
            await asyncio.sleep(3600)
        first = False
        there, back = await asyncio.open_connection(shard_server.postgres.host, shard_server.postgres.port)
        await asyncio.gather(_copy(reader, back), _copy(there, writer), return_exceptions=True)

    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(handle(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()


async def test_a_statement_is_prepared_once_a_session(connection: ShardConnection):
    for number in range(3):
        assert await connection.fetch(ECHO, {"said": str(number)}) == [(str(number).encode(),)]
    names = await connection.fetch("SELECT name FROM pg_prepared_statements", ())
    assert names == [(b"echo",)]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    said=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
    | st.text(st.sampled_from("'\\;-%\"$ aé()"))
)
@example(said="'); DROP TABLE patients; --")
@example(said="100 % \\' %(said)s %%")
@example(said="Ærø, J. (née +@/:-_)")
async def test_whatever_is_said_arrives_as_a_value(connection: ShardConnection, said: str):
    """Plain words are written without psycopg2, everything else by it."""
    assert await connection.fetch(ECHO, {"said": said}) == [(said.encode(),)]
    three = Prepared(
        "three", "PREPARE three (text, int, uuid) AS SELECT $1, $2, $3", "EXECUTE three (%(a)s, %(b)s, %(c)s)"
    )
    some_id = UUID(int=7)
    plain = shard_connection._PLAIN.fullmatch(said)
    values = {"a": said, "b": -3, "c": some_id if plain else str(some_id)}
    assert await connection.fetch(three, values) == [(said.encode(), -3, str(some_id))]


async def test_a_first_use_that_fails_closes_the_connection(connection: ShardConnection):
    """Whether it was prepared before it failed can't be told."""
    inverse = Prepared("inverse", "PREPARE inverse (int) AS SELECT 1 / $1", "EXECUTE inverse (%(n)s)")
    with pytest.raises(psycopg2.Error):
        await connection.fetch(inverse, {"n": 0})
    assert connection.closed


async def test_a_later_use_that_fails_leaves_the_connection_usable(connection: ShardConnection):
    inverse = Prepared("inverse", "PREPARE inverse (int) AS SELECT 1 / $1", "EXECUTE inverse (%(n)s)")
    assert await connection.fetch(inverse, {"n": 1}) == [(1,)]
    with pytest.raises(psycopg2.Error):
        await connection.fetch(inverse, {"n": 0})
    assert await connection.fetch(inverse, {"n": 1}) == [(1,)]


async def test_an_abandoned_first_use_is_remembered_as_prepared(connection: ShardConnection):
    call = asyncio.create_task(connection.fetch(ECHO, {"said": "abandoned"}))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await connection.settle()
    assert await connection.fetch(ECHO, {"said": "mine"}) == [(b"mine",)]


async def test_the_next_statement_may_be_sent_before_the_rows_of_the_last_are_taken(connection: ShardConnection):
    first: FutureRows = asyncio.get_running_loop().create_future()
    second: FutureRows = asyncio.get_running_loop().create_future()

    def send_second() -> None:
        connection.on_free = lambda: None
        connection.begin("SELECT 'second' FROM pg_sleep(0.01)", (), second)

    connection.on_free = send_second
    connection.begin("SELECT 'first' FROM pg_sleep(0.01)", (), first)
    assert await first == [(b"first",)]
    assert connection.carries(second)
    assert await second == [(b"second",)]


async def test_nobody_is_told_of_a_free_connection_while_an_abandoned_statement_settles(connection: ShardConnection):
    told = []
    connection.on_free = lambda: told.append("free")
    call = asyncio.create_task(connection.fetch("SELECT 1 FROM pg_sleep(0.05)", ()))
    await asyncio.sleep(0)
    call.cancel()
    connection.keep_back()
    await connection.settle()
    assert (told, connection.busy, connection.closed) == ([], False, False)
    assert await connection.fetch("SELECT 1 FROM pg_sleep(0.01)", ()) == [(1,)]
    assert told == ["free"]
