"""The real tenant-service makes a shard; this service's tables equal it, and everything works on it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from patient_practices import (
    GATEWAY_KEY,
    JOHN,
    SHARD_KEY,
    PatientClient,
    Practice,
    ShardServer,
    eventually,
    running,
    settings_for,
)
from pydantic import SecretStr
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import make_url

from gowebbo_stack.ports import free_port
from gowebbo_stack.testing import PostgresServer, running_postgres
from patient_service.schema import ACCEPTED_REVISIONS, metadata
from shared.client import async_service_client
from shared.ids import new_id
from tenant_service import migrating

pytestmark = pytest.mark.anyio

TENANT_PASSWORD = "password-of-tenant-in-a-test"


class RealTenantService:
    """tenant-service as a process of its own, prepared the way an operator does it."""

    def __init__(self, postgres: PostgresServer) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.postgres = postgres
        self._environment = os.environ | {
            "DB_HOST": postgres.host,
            "DB_PORT": str(postgres.port),
            "DB_NAME": "gowebbo",
            "DB_USER": "gowebbo_tenant",
            "DB_PASS": TENANT_PASSWORD,
            "DB_SUPERUSER": postgres.superuser,
            "DB_SUPERUSER_PASS": postgres.password,
            "TENANT_DB_PASS": TENANT_PASSWORD,
            "AUTH_DB_PASS": "password-of-auth-in-a-test",
            "GATEWAY_SECRET": GATEWAY_KEY.decode(),
            "SHARD_SECRET": SHARD_KEY.decode(),
            "HOST": "127.0.0.1",
            "PORT": str(port),
        }

    def command(self, *words: str) -> None:
        subprocess.run([sys.executable, "-m", "tenant_service.cli", *words], env=self._environment, check=True)

    def start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-m", "tenant_service"], env=self._environment)

    async def practice(self) -> Practice:
        """A new practice with a shard."""
        practice_id = str(new_id())
        async with async_service_client(self.url, name="auth-service", keys=[GATEWAY_KEY]) as client:

            async def made() -> dict[str, Any] | None:
                try:
                    answer = await client.put(f"/internal/shards/{practice_id}")
                except httpx.TransportError:
                    return None
                return answer.json() if answer.is_success else None

            await eventually(made, limit_s=60)
            shard = await made()
        assert shard
        server, database = shard["shard"].split("/")
        return Practice(practice_id, database, server)


@pytest.fixture
def real_tenant(tmp_path: Path) -> Iterator[RealTenantService]:
    with running_postgres(tmp_path) as postgres:
        tenant = RealTenantService(postgres)
        tenant.command("prepare")
        tenant.command("migrate")
        process = tenant.start()
        try:
            yield tenant
        finally:
            process.terminate()
            process.wait(30)


async def test_a_shard_of_the_real_tenant_service_has_this_services_tables_and_serves_it(
    real_tenant: RealTenantService,
):
    practice = await real_tenant.practice()
    url = make_url(real_tenant.postgres.dsn(practice.database)).set(drivername="postgresql+psycopg2")
    engine = create_engine(url)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True, "include_name": _is_no_stamp}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        checks = inspect(connection).get_check_constraints("patients")
        assert [check["name"] for check in checks] == ["patients_is_deleted_check"]
        index = inspect(connection).get_indexes("patients")[0]
        assert (index["column_names"], "is_deleted = 0" in str(index["dialect_options"])) == (["id"], True)
    engine.dispose()

    settings = settings_for(real_tenant, gateway_secret=SecretStr(GATEWAY_KEY.decode()))
    async with running(settings) as service:
        await _journey(service, practice)
        assert (await service.http.get("/readyz")).status_code == 200


def test_this_service_works_with_the_revisions_that_tenant_service_may_leave_a_shard_at():
    """Its newest and the one before. Each further migration moves ACCEPTED_REVISIONS on."""
    assert {revision.encode() for revision in migrating.accepted_revisions()} == ACCEPTED_REVISIONS


async def test_calls_go_on_over_a_migration_on_the_connection_that_is_open(
    service: PatientClient, shard_server: ShardServer, practice: Practice
):
    """What the session has prepared is planned anew, and the connection is kept."""
    former, head = migrating.accepted_revisions()
    back = f"ALTER TABLE patients RESET (fillfactor); UPDATE alembic_version SET version_num = '{former}'"
    shard_server.run(back, database=practice.database)
    await _journey(service, practice)
    shard_server.run(migrating.shard_script(former, head), database=practice.database)
    patient = await service.add(practice, name="After")
    for method, body in (("GET", None), ("PUT", JOHN), ("PATCH", {"age": 1}), ("DELETE", None)):
        assert (await service.call(practice, method, f"/{patient['id']}", json=body)).status_code == 200
    assert shard_server.sessions(practice) == 1
    assert service.app.state.pool.opened == 1


def _is_no_stamp(name: str | None, kind: str, _: object) -> bool:
    return not (kind == "table" and name == "alembic_version")


async def _journey(service: PatientClient, practice: Practice) -> None:
    patient = await service.add(practice)
    path = f"/{patient['id']}"
    for method, suffix, body, status in (
        ("GET", path, None, 200),
        ("PUT", path, JOHN, 200),
        ("PATCH", path, {"age": 1}, 200),
        ("DELETE", path, None, 200),
        ("GET", path, None, 404),
        ("POST", f"{path}/restore", None, 200),
    ):
        assert (await service.call(practice, method, suffix, json=body)).status_code == status, (method, suffix)
    assert await service.names(practice) == [JOHN["name"]]
