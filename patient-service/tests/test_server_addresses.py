"""What a shard server says of itself, where it is, and what becomes of connections when that changes."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg2
import pytest
from patient_practices import (
    JOHN,
    PatientClient,
    Practice,
    ShardServer,
    TenantService,
    eventually,
    running,
    settings_for,
)
from shard_proxy import ShardProxy

from gowebbo_stack.testing import running_postgres
from patient_service import host_names, servers, shard_pool
from patient_service.host_names import HostNames
from patient_service.shard_connection import ShardConnection
from patient_service.shard_pool import ShardPool

pytestmark = pytest.mark.anyio


def pool_of(service: PatientClient) -> ShardPool:
    return service.app.state.pool


@pytest.fixture
async def proxy(shard_server: ShardServer, anyio_backend: object) -> AsyncIterator[ShardProxy]:
    """Another address of the server."""
    async with ShardProxy(shard_server.postgres).listening() as listening:
        yield listening


async def test_a_server_that_allows_less_than_was_told_is_never_full(tenant: TenantService, tmp_path: Path):
    """tenant-service may not have looked at it since it was restarted: the first connection says how it is."""
    with running_postgres(tmp_path, max_connections=40) as postgres:
        server = ShardServer(postgres).prepare()
        practices = server.practices(30)
        tenant.name("a", postgres, max_connections=200)
        async with running(settings_for(tenant, practice_wait_ms=5000)) as service:
            assert (await service.call(practices[0], "GET")).status_code == 200
            assert pool_of(service).slots["a"].budget == 10
            for _ in range(3):
                answers = await asyncio.gather(*(service.call(practice, "GET") for practice in practices))
                assert {answer.status_code for answer in answers} == {200}
            assert server.sessions(*practices) <= 10


async def test_a_practice_whose_role_is_full_costs_its_neighbours_next_to_nothing(
    service: PatientClient, practice: Practice, shard_server: ShardServer
):
    """PostgreSQL's SQLSTATE is that of a full server; closing the connections of others would help nobody."""
    neighbours = [shard_server.practice() for _ in range(6)]
    for neighbour in neighbours:
        await service.names(neighbour)
    shard_server.run(f"ALTER ROLE {practice.database} CONNECTION LIMIT 0")
    answer = await service.call(practice, "GET")
    assert (answer.status_code, answer.json()["type"]) == (503, "/errors/shard-server-full")
    assert shard_server.sessions(*neighbours) >= len(neighbours) - 1
    shard_server.run(f"ALTER ROLE {practice.database} CONNECTION LIMIT 8")
    assert await service.names(practice) == []


async def test_the_server_notices_within_a_minute_that_nobody_is_there(
    tenant: TenantService, practice: Practice, shard_server: ShardServer
):
    """Otherwise the sessions of a host that died would use up what the practice's role may have."""
    tenant.name("a", shard_server.postgres, host="127.0.0.1")
    async with running(settings_for(tenant)) as service:
        shown = []
        for name in ("idle", "interval", "count"):
            statement = f"SELECT current_setting('tcp_keepalives_{name}')::int"
            shown += await pool_of(service).fetch(practice.id, f"a/{practice.database}", statement, {})
    assert shown == [(30,), (10,), (3,)]


async def test_a_new_address_is_learned_in_time_and_the_old_one_left(
    tenant: TenantService, practice: Practice, shard_server: ShardServer, proxy: ShardProxy, monkeypatch
):
    """Though it still answers: it may be the writer that was replaced."""
    other_practice = shard_server.practice()
    monkeypatch.setattr(servers, "REFRESH_S", 0.05)
    tenant.name("a", shard_server.postgres, port=proxy.port)
    async with running(settings_for(tenant)) as service:
        await service.names(practice)
        assert proxy.connections == 1
        with shard_server.connection(other_practice.database) as holding, holding.cursor() as cursor:
            cursor.execute("BEGIN; LOCK TABLE patients")
            busy = asyncio.create_task(service.names(other_practice))
            await eventually(lambda: shard_server.sessions(other_practice) and pool_of(service).slots["a"].at_work)
            tenant.name("a", shard_server.postgres)
            await eventually(lambda: not shard_server.sessions(practice))
            assert not busy.done()
            cursor.execute("COMMIT")
        assert await busy == []  # what was under way comes to its end
        await eventually(lambda: not shard_server.sessions(other_practice))
        met = proxy.connections
        assert await service.names(practice) == await service.names(other_practice) == []
        assert proxy.connections == met
        assert not pool_of(service)._outdated


async def test_a_silent_old_address_is_asked_about(
    tenant: TenantService, practice: Practice, shard_server: ShardServer, monkeypatch: pytest.MonkeyPatch
):
    """It refuses nobody: that it is the wrong one shows by the time only."""
    monkeypatch.setattr(shard_pool, "OPEN_LIMIT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tenant.name("a", shard_server.postgres, host="127.0.0.1", port=silent.getsockname()[1])
        async with running(settings_for(tenant)) as service:
            assert (await service.call(practice, "GET")).status_code == 503
            tenant.name("a", shard_server.postgres)
            await eventually(lambda: service.answers(practice, 200))


async def test_a_lost_write_is_told_from_one_that_was_refused(
    tenant: TenantService, shard_server: ShardServer, proxy: ShardProxy, monkeypatch: pytest.MonkeyPatch
):
    """Whoever repeats it blindly may have the patient twice; a read can be repeated."""
    monkeypatch.setattr("patient_service.shard_connection.STATEMENT_LIMIT_S", 0.4)
    tenant.name("b", shard_server.postgres, port=proxy.port)
    made = shard_server.practice()
    far = Practice(made.id, made.database, "b")
    async with running(settings_for(tenant)) as service:
        patient = await service.add(far)
        writes = [
            ("POST", "", JOHN),
            ("PUT", f"/{patient['id']}", JOHN),
            ("PATCH", f"/{patient['id']}", {"age": 1}),
            ("DELETE", f"/{patient['id']}", None),
            ("POST", f"/{patient['id']}/restore", None),
        ]
        for method, path, body in writes:
            await service.names(far)
            proxy.let_through(0)
            lost = await service.call(far, method, path, **({"json": body} if body else {}))
            assert (lost.status_code, lost.json()["type"]) == (503, "/errors/outcome-unknown"), (method, path)
            assert "before you repeat" in lost.json()["detail"]
            proxy.let_through()
        await service.names(far)
        proxy.let_through(0)
        read = await service.call(far, "GET")
        assert (read.status_code, read.json()["type"]) == (503, "/errors/shard-unavailable")
        proxy.let_through()
        shard_server.run(f"ALTER ROLE {far.database} SET default_transaction_read_only = on")
        shard_server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (far.database,))
        refused = await service.call(far, "POST", json=JOHN)
        assert (refused.status_code, refused.json()["type"]) == (503, "/errors/shard-unavailable")


async def test_a_flooding_practice_gives_a_contested_connection_back_after_its_turn(
    tenant: TenantService, practice: Practice, other_practice: Practice, monkeypatch: pytest.MonkeyPatch
):
    """Where there is one for all, it serves what it can in its turn, and then the others."""
    monkeypatch.setattr(shard_pool, "TURN_S", 0.1)
    async with running(settings_for(tenant, shard_connections=1)) as service:
        flood, served = True, 0

        async def ask_on() -> None:
            nonlocal served
            while flood:
                served += (await service.call(practice, "GET")).status_code == 200

        asking = [asyncio.create_task(ask_on()) for _ in range(20)]
        await eventually(lambda: served > 50)
        before, opened = served, pool_of(service).opened
        for _ in range(10):
            assert await service.names(other_practice) == []
        flood, served, turns = False, served - before, (pool_of(service).opened - opened) / 2
        await asyncio.gather(*asking)
        assert turns >= 9  # the connection went to and fro
        assert served > 3 * turns  # and each time it was used for more than a call


@pytest.mark.parametrize(
    "asks",
    [b"R\0\0\0\x08\0\0\0\x03", b"R\0\0\0\x0c\0\0\0\x05salt", b"R\0\0\0\x08\0\0\0\0"],
    ids=["the password", "its MD5", "nothing"],
)
async def test_a_false_server_is_told_no_password_and_not_trusted(
    tenant: TenantService, practice: Practice, shard_server: ShardServer, asks: bytes
):
    with _answering(asks) as (port, heard):
        tenant.name("a", shard_server.postgres, host="127.0.0.1", port=port, sslmode="disable")
        async with running(settings_for(tenant)) as service:
            answer = await service.call(practice, "GET")
    assert answer.status_code == 503
    assert len(heard) >= 1
    assert not any(b"p\0\0" in said for said in heard)


@contextlib.contextmanager
def _answering(asks: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A server that answers a connection's first message with this, and what it then hears."""
    heard: list[bytes] = []

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(1)
                    connection.recv(10_000)
                    connection.sendall(asks)
                    heard.append(b"")
                    with contextlib.suppress(TimeoutError):
                        while part := connection.recv(10_000):
                            heard[-1] += part

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        try:
            yield listening.getsockname()[1], heard
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


class Resolver:
    """The system's look-ups."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses, self.fault, self.asked = ["192.0.2.1"], None, 0
        self.answers = asyncio.Event()
        self.answers.set()
        monkeypatch.setattr(host_names, "_look_up", self.look_up)
        monkeypatch.setattr(host_names, "PATIENCE_S", 0.05)

    async def look_up(self, _: host_names.Name) -> host_names.Addresses:
        self.asked += 1
        await self.answers.wait()
        if self.fault:
            raise self.fault
        return self.addresses


async def test_a_name_is_looked_up_once_for_all_who_wait(monkeypatch: pytest.MonkeyPatch):
    resolver, names = Resolver(monkeypatch), HostNames()
    resolver.answers.clear()
    waiting = [asyncio.create_task(names.addresses("db.example", 5432)) for _ in range(50)]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    resolver.answers.set()
    assert await asyncio.gather(*waiting) == [["192.0.2.1"]] * 49
    assert resolver.asked == 1
    resolver.addresses = ["192.0.2.2"]
    assert await names.addresses("db.example", 5432) == ["192.0.2.2"]


async def test_the_last_addresses_do_while_a_look_up_fails_or_hangs(monkeypatch: pytest.MonkeyPatch):
    resolver, names = Resolver(monkeypatch), HostNames()
    resolver.fault = OSError("no such name")
    with pytest.raises(OSError, match="no such name"):
        await names.addresses("db.example", 5432)
    resolver.fault = None
    await names.addresses("db.example", 5432)
    resolver.fault = OSError("no answer")
    assert await names.addresses("db.example", 5432) == ["192.0.2.1"]
    resolver.fault, resolver.addresses = None, ["192.0.2.3"]
    resolver.answers.clear()
    started = time.monotonic()
    assert [await names.addresses("db.example", 5432) for _ in range(3)] == [["192.0.2.1"]] * 3
    assert resolver.asked == 4
    assert time.monotonic() > started
    resolver.answers.set()
    await eventually(lambda: not names._asked)
    assert names._known["db.example", 5432] == ["192.0.2.3"]


async def test_a_connection_that_cant_be_written_to_is_lost(practice: Practice, shard_server: ShardServer):
    """Whatever psycopg2 says of it: it must not go back to the others."""
    connection = await ShardConnection.connect(psycopg2.extensions.parse_dsn(shard_server.postgres.dsn("postgres")))
    really, closed = connection._raw, []
    connection.on_close = lambda: closed.append(True)

    class Unwritable:
        closed = 0

        def cursor(self):
            raise psycopg2.OperationalError

        def close(self):
            really.close()
            self.closed = 1

    connection._raw = Unwritable()
    with pytest.raises(psycopg2.OperationalError):
        connection.begin("SELECT 1", (), asyncio.get_running_loop().create_future())
    assert connection.closed
    assert closed == [True]
