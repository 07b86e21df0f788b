"""Servers that every package's tests share: made for each test process, on first use."""

import os
from collections.abc import Iterator

import pytest

from gowebbo_stack.certificates import make_certificate
from gowebbo_stack.testing import (
    PostgresServer,
    RedisServer,
    SecondPostgres,
    find_postgres,
    running_postgres,
    running_redis,
)

SECOND_MAJOR = 15
"""The oldest PostgreSQL that may hold shards; the wheel's is the newest."""


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


@pytest.fixture(scope="session")
def second_postgres(tmp_path_factory: pytest.TempPathFactory) -> SecondPostgres:
    """Debian's package, which has TLS as the wheel has not. Where it is missing, REQUIRE_POSTGRES_15=1 fails."""
    programs = find_postgres(SECOND_MAJOR)
    if programs is None:
        told = f"needs PostgreSQL {SECOND_MAJOR} on PATH or in /usr/lib/postgresql: apt-get install postgresql-15"
        if os.environ.get("REQUIRE_POSTGRES_15") == "1":
            pytest.fail(told)
        pytest.skip(told)
    folder = tmp_path_factory.mktemp("authority")
    authority, certificate, key = make_certificate(folder)
    tls = {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
    return SecondPostgres(programs, tls, authority)


@pytest.fixture(scope="session")
def postgres15(second_postgres: SecondPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A real PostgreSQL 15 with TLS: a server that nobody has prepared."""
    folder = tmp_path_factory.mktemp("postgres15")
    with running_postgres(folder, programs=second_postgres.programs, settings=second_postgres.settings) as server:
        yield server
