"""The servers that every other test relies on."""

from pathlib import Path

import psycopg2
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def test_postgres_asks_for_a_password_on_every_connection(postgres):
    with psycopg2.connect(postgres.dsn()) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW server_encoding")
        assert cursor.fetchone() == ("UTF8",)
        cursor.execute("SELECT datcollate FROM pg_database WHERE datname = 'template1'")
        assert cursor.fetchone() == ("C.UTF-8",)
        cursor.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
        assert cursor.fetchall() == [("scram-sha-256",)]
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(host=postgres.host, port=postgres.port, user=postgres.superuser, password="wrong")


def test_postgres_pid_is_the_postmaster_itself(postgres):
    assert b"bin/postgres" in Path(f"/proc/{postgres.pid}/cmdline").read_bytes()


def test_redis_asks_for_its_password(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.ping()
    stranger = redis.Redis(port=redis_server.port, retry=Retry(NoBackoff(), 0))
    with stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_the_second_postgres_is_another_version_and_speaks_tls(postgres15, second_postgres):
    tls = {"sslmode": "verify-full", "sslrootcert": second_postgres.authority}
    with psycopg2.connect(postgres15.dsn(), **tls) as connection, connection.cursor() as cursor:
        assert connection.info.server_version // 10_000 == 15
        assert connection.info.ssl_in_use
        cursor.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
        assert cursor.fetchall() == [("scram-sha-256",)]
