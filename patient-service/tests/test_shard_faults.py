"""What is answered when a database, its server or tenant-service fails; and that everything works again afterwards."""

import asyncio
import collections
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

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
from psycopg2 import sql

from gowebbo_stack.launching import start
from gowebbo_stack.ports import free_port
from gowebbo_stack.postgres import SUPERUSER, Postgres
from gowebbo_stack.testing import PostgresServer
from patient_service.shard_connection import STATEMENT_LIMIT_S

pytestmark = pytest.mark.anyio


@contextlib.contextmanager
def locked(shard_server: ShardServer, practice: Practice) -> Iterator[None]:
    """Somebody else holds every row of the practice's table."""
    with shard_server.connection(practice.database) as connection:
        connection.autocommit = False
        connection.cursor().execute("LOCK TABLE patients IN ACCESS EXCLUSIVE MODE")
        yield


def set_role(shard_server: ShardServer, practice: Practice, **settings: str) -> None:
    for name, value in settings.items():
        shard_server.run(
            sql.SQL("ALTER ROLE {} SET {} = {}").format(
                sql.Identifier(practice.database), sql.Identifier(name), sql.Literal(value)
            )
        )


def blocked_backends(shard_server: ShardServer, practice: Practice) -> list[int]:
    """The practice's backends that wait for a lock."""
    query = "SELECT pid FROM pg_stat_activity WHERE usename = %s AND wait_event_type = 'Lock'"
    return [pid for (pid,) in shard_server.run(query, (practice.database,))]


async def test_a_statement_that_takes_too_long_is_ended_by_its_role(
    service: PatientClient, practice: Practice, shard_server: ShardServer
):
    set_role(shard_server, practice, statement_timeout="200ms", lock_timeout="0")
    await service.names(practice)
    with locked(shard_server, practice):
        answer = await service.call(practice, "GET")
    assert (answer.status_code, answer.json()["type"]) == (504, "/errors/too-slow")
    assert await service.names(practice) == []


async def test_a_lock_that_is_not_given_is_answered_as_busy(
    service: PatientClient, practice: Practice, shard_server: ShardServer
):
    set_role(shard_server, practice, lock_timeout="100ms")
    await service.names(practice)
    with locked(shard_server, practice):
        answer = await service.call(practice, "POST", json=JOHN)
    assert (answer.status_code, answer.json()["type"]) == (503, "/errors/practice-busy")
    assert "retry-after" in answer.headers
    assert await service.names(practice) == []


async def test_a_backend_killed_in_mid_statement_is_answered_and_replaced(
    service: PatientClient, practice: Practice, shard_server: ShardServer
):
    patient = await service.add(practice)
    with locked(shard_server, practice):
        call = asyncio.create_task(service.call(practice, "PATCH", f"/{patient['id']}", json={"age": 99}))
        await eventually(lambda: asyncio.to_thread(blocked_backends, shard_server, practice))
        for pid in blocked_backends(shard_server, practice):
            shard_server.run("SELECT pg_terminate_backend(%s)", (pid,))
        answer = await call
    assert (answer.status_code, answer.json()["type"]) == (503, "/errors/shard-unavailable")
    assert "retry-after" in answer.headers
    read = await service.call(practice, "GET", f"/{patient['id']}")
    assert read.json()["result"] == patient


async def test_a_backend_killed_while_idle_is_noticed_before_the_next_call(
    service: PatientClient, practice: Practice, shard_server: ShardServer
):
    await service.names(practice)
    slots = service.app.state.pool.slots["a"]
    shard_server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (practice.database,))
    await eventually(lambda: not slots.used)
    assert await service.names(practice) == []


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE patients RENAME TO elsewhere",
        "REVOKE ALL ON patients FROM shard_rw",
        "ALTER TABLE patients DROP COLUMN version",
    ],
)
async def test_a_shard_that_lacks_what_it_needs_is_a_named_error(
    service: PatientClient, practice: Practice, shard_server: ShardServer, damage: str
):
    shard_server.run(damage, database=practice.database)
    answer = await service.call(practice, "GET")
    assert (answer.status_code, answer.json()["type"]) == (503, "/errors/shard-unfit")
    assert "patients" not in answer.json()["detail"]


async def test_a_shard_that_is_read_only_answers_writes_with_later(
    service: PatientClient, practice: Practice, shard_server: ShardServer
):
    set_role(shard_server, practice, default_transaction_read_only="on")
    answer = await service.call(practice, "POST", json=JOHN)
    assert (answer.status_code, answer.json()["type"]) == (503, "/errors/shard-unavailable")
    assert await service.names(practice) == []


async def test_a_constraint_that_refuses_is_no_fault_of_ours(
    service: PatientClient, practice: Practice, shard_server: ShardServer
):
    shard_server.run("ALTER TABLE patients ADD CHECK (age < 100)", database=practice.database)
    answer = await service.call(practice, "POST", json=JOHN | {"age": 120})
    assert (answer.status_code, answer.json()["type"]) == (409, "/errors/conflict")
    assert "patients" not in answer.text
    assert "120" not in answer.json()["detail"]


async def test_no_error_shows_or_logs_sql_or_values(
    service: PatientClient, practice: Practice, shard_server: ShardServer, capsys
):
    shard_server.run("ALTER TABLE patients ADD CHECK (name <> 'Secret Name')", database=practice.database)
    answers = [
        await service.call(practice, "POST", json=JOHN | {"name": "Secret Name"}),
        await service.call(practice.caller(shard="a/shard_00000000"), "GET"),
    ]
    shard_server.run("DROP TABLE patients", database=practice.database)
    answers.append(await service.call(practice, "GET"))
    said = "".join(answer.text for answer in answers) + "".join(capsys.readouterr())
    for secret in ("Secret Name", "INSERT", "SELECT", "FATAL", "password", "psycopg2.errors", "Traceback", "127.0.0.1"):
        assert secret not in said, secret


class RestartableServer:
    """A PostgreSQL that can be killed and started again with its data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = Postgres(folder / "postgres", free_port(), "test-password-of-one-server", 60, durable=True)
        self._server.initialise()
        self._process: subprocess.Popen[bytes] | None = None
        self.address = PostgresServer(
            "127.0.0.1", self._server.port, SUPERUSER, self._server.password, 0, self._server.data
        )

    async def start(self) -> None:
        self._process = start(self._server.launch(self._folder / "postgres.log"))
        await eventually(lambda: asyncio.to_thread(self._server.accepts_connections), limit_s=60)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        if self._process is not None:
            self.send(number)
            self._process.wait(30)
            self._process = None


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartableServer]:
    server = RestartableServer(tmp_path_factory.mktemp("own"))
    try:
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
async def test_a_restart_of_the_server_loses_nothing_that_was_acknowledged(
    own_server: RestartableServer, tenant: TenantService, how: signal.Signals
):
    await own_server.start()
    practice = ShardServer(own_server.address).prepare().practice()
    tenant.name("a", own_server.address)
    async with running(settings_for(tenant)) as service:
        names = [(await service.add(practice, name=f"Number {number}"))["name"] for number in range(5)]
        own_server.stop(how)
        down = await service.call(practice, "GET")
        assert (down.status_code, down.json()["type"]) == (503, "/errors/shard-unavailable")
        assert "retry-after" in down.headers
        assert (await service.http.get("/readyz")).status_code == 503
        assert (await service.http.get("/livez")).status_code == 200
        await own_server.start()
        await eventually(lambda: service.answers(practice, 200))
        assert await service.names(practice) == names
        assert (await service.http.get("/readyz")).status_code == 200


async def test_an_immediate_restart_under_calls_costs_them_and_nothing_else(
    own_server: RestartableServer, tenant: TenantService
):
    """Twelve clients write and read all the time: each gets what it asked for or 503, and everything works again."""
    await own_server.start()
    server = ShardServer(own_server.address).prepare()
    practices = [server.practice() for _ in range(4)]
    tenant.name("a", own_server.address)
    acknowledged: dict[Practice, set[str]] = {practice: set() for practice in practices}
    statuses: collections.Counter[int] = collections.Counter()
    is_over = False

    async with running(settings_for(tenant)) as service:

        async def client(number: int) -> None:
            practice, written = practices[number % len(practices)], 0
            while not is_over:
                name = f"{number} {written}"
                answer = await service.call(practice, "POST", json=JOHN | {"name": name})
                if answer.status_code == 201:
                    acknowledged[practice].add(answer.json()["result"]["name"])
                else:
                    assert "retry-after" in answer.headers
                    await asyncio.sleep(0.02)
                written += 1
                listed = await service.call(practice, "GET", "?limit=1")
                statuses.update([answer.status_code, listed.status_code])

        clients = [asyncio.create_task(client(number)) for number in range(12)]
        for stop in (signal.SIGQUIT, signal.SIGKILL):
            before = statuses[201]
            await eventually(lambda before=before: statuses[201] > before + 50)
            await asyncio.to_thread(own_server.stop, stop)
            refused = statuses[503]
            await eventually(lambda refused=refused: statuses[503] > refused + 20)
            await own_server.start()
        async with asyncio.timeout(STATEMENT_LIMIT_S / 2):  # nobody waits for an answer that can't come
            for practice in practices:
                await eventually(lambda practice=practice: service.answers(practice, 200))
        is_over = True
        await asyncio.gather(*clients)
        assert set(statuses) == {200, 201, 503}
        for practice in practices:
            stored = [row[0] for row in server.run("SELECT name FROM patients", database=practice.database)]
            assert len(stored) == len(set(stored))
            assert acknowledged[practice] <= set(stored)
        slots = service.app.state.pool.slots["a"]
        await eventually(lambda: slots.used == slots.idle == len(practices))


async def test_a_server_that_answers_nobody_holds_up_no_other(
    own_server: RestartableServer, tenant: TenantService, practice: Practice
):
    await own_server.start()
    hung = ShardServer(own_server.address).prepare().practice()
    tenant.name("b", own_server.address)
    async with running(settings_for(tenant)) as service:
        own_server.send(signal.SIGSTOP)
        try:
            calls = [
                asyncio.create_task(service.call(hung.caller(shard=f"b/{hung.database}"), "GET")) for _ in range(20)
            ]
            for _ in range(50):
                assert (await service.call(practice, "GET")).status_code == 200
            assert not any(call.done() for call in calls)
            answers = await asyncio.gather(*calls)
        finally:
            own_server.send(signal.SIGCONT)
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.json()["type"] for answer in answers} == {"/errors/practice-busy"}


async def test_it_starts_without_tenant_service_and_recovers(tenant: TenantService, practice: Practice):
    tenant.fails = True
    async with running(settings_for(tenant)) as service:
        assert (await service.http.get("/livez")).status_code == 200
        ready = await service.http.get("/readyz")
        assert (ready.status_code, list(ready.json()["missing"])) == (503, ["tenant-service"])
        answer = await service.call(practice, "GET")
        assert (answer.status_code, answer.json()["type"]) == (503, "/errors/shard-unavailable")
        tenant.fails = False
        await eventually(lambda: service.answers(practice, 200))
        assert (await service.http.get("/readyz")).status_code == 200
        tenant.fails = True
        assert (await service.call(practice, "GET")).status_code == 200


async def test_a_server_with_a_new_address_is_followed(
    own_server: RestartableServer, tenant: TenantService, practice: Practice, shard_server: ShardServer
):
    tenant.name("a", shard_server.postgres, port=free_port())
    async with running(settings_for(tenant)) as service:
        assert (await service.call(practice, "GET")).status_code == 503
        tenant.name("a", shard_server.postgres, host="localhost")
        await eventually(lambda: service.answers(practice, 200))


async def test_a_host_that_cannot_be_resolved_is_answered_as_unavailable(
    tenant: TenantService, practice: Practice, shard_server: ShardServer
):
    tenant.name("a", shard_server.postgres, host="no-such-host.invalid")
    async with running(settings_for(tenant)) as service:
        answer = await service.call(practice, "GET")
        assert answer.status_code == 503
        assert answer.json()["type"] in {"/errors/shard-unavailable", "/errors/practice-busy"}


async def test_a_server_without_tls_is_refused_where_tls_is_asked(
    tenant: TenantService, practice: Practice, shard_server: ShardServer
):
    tenant.name("a", shard_server.postgres, sslmode="verify-full", sslrootcert="/nonexistent/ca.pem")
    async with running(settings_for(tenant)) as service:
        answer = await service.call(practice, "GET")
        assert (answer.status_code, answer.json()["type"]) == (503, "/errors/shard-unavailable")
