"""A fleet for each test: a central database of its own on the shared server."""

from collections.abc import Iterator

import pytest
from tenant_stand import Fleet, Tenants, new_fleet, serving, wait_for

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
