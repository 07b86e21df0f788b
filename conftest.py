"""Servers that every package's tests share: one PostgreSQL and one Valkey for each test process, made on first use."""

from collections.abc import Iterator

import pytest

from gowebbo_stack.testing import PostgresServer, RedisServer, running_postgres, running_redis


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A real PostgreSQL: `host`, `port`, `superuser`, `password`, `dsn(dbname)`."""
    with running_postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real Redis-protocol server: `host`, `port`, `password`, `url`."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server
