"""A fleet for each test: a central database of its own on the shared server."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from server_stand import SERVERS, Add, make_pristine
from tenant_stand import ADMIN, Fleet, Tenants, new_fleet, serving, wait_for

from gowebbo_stack.testing import PostgresServer


@pytest.fixture
def fleet(postgres: PostgresServer) -> Iterator[Fleet]:
    """A prepared, migrated fleet whose parts know their server."""
    made = new_fleet(postgres)
    assert made.servers.refresh()
    yield made
    made.drop_everything()


@pytest.fixture
def tenants(fleet: Fleet) -> Iterator[Tenants]:
    """The running service, ready."""
    with serving(fleet) as running:
        wait_for(running.is_ready)
        yield running


@pytest.fixture
def second(postgres15: PostgresServer) -> Iterator[PostgresServer]:
    """An unprepared PostgreSQL 15."""
    yield postgres15
    make_pristine(postgres15)


@pytest.fixture
def as_superuser(second: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> PostgresServer:
    """The same, whose superuser is given to the service."""
    monkeypatch.setenv("SERVER_B_USER", second.superuser)
    monkeypatch.setenv("SERVER_B_PASS", second.password)
    return second


@pytest.fixture
def add(tenants: Tenants) -> Add:
    """Adds a server as the operator does."""

    def call(server: PostgresServer, key: str = "b", **changes: Any) -> httpx.Response:
        body = {"key": key, "host": server.host, "port": server.port, **changes}
        return tenants.call("POST", SERVERS, caller=ADMIN, json=body)

    return call
