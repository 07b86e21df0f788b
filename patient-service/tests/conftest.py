"""One shard server for the session; a service of its own for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest
from patient_practices import PatientClient, Practice, ShardServer, TenantService, running, settings_for

from gowebbo_stack.testing import PostgresServer


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """As in production."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def shard_server(postgres: PostgresServer) -> ShardServer:
    return ShardServer(postgres).prepare()


@pytest.fixture
def practice(shard_server: ShardServer) -> Practice:
    return shard_server.practice()


@pytest.fixture
def other_practice(shard_server: ShardServer) -> Practice:
    return shard_server.practice()


@pytest.fixture
def tenant(shard_server: ShardServer) -> Iterator[TenantService]:
    tenant = TenantService()
    tenant.name("a", shard_server.postgres)
    with tenant.serving():
        yield tenant


@pytest.fixture
async def service(tenant: TenantService, anyio_backend: object) -> AsyncIterator[PatientClient]:
    async with running(settings_for(tenant)) as client:
        yield client
