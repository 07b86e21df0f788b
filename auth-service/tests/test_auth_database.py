"""The way to the central database: what the server ended while nobody used it is replaced before it is used."""

import select
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from auth_service.config import DatabaseSettings
from auth_service.database import Database


@pytest.fixture
def database(database_settings) -> Iterator[Database]:
    made = Database(DatabaseSettings(_env_file=None, **database_settings))
    yield made
    made.close()


def test_a_connection_that_was_ended_while_idle_is_replaced(database, central):
    for engine in (database.engine, database.reading):
        with engine.connect() as connection:
            pid = connection.scalar(text("SELECT pg_backend_pid()"))
            ended = select.poll()
            ended.register(connection.connection.fileno(), select.POLLIN)
        central.rows("SELECT pg_terminate_backend(%s)", pid)
        assert ended.poll(10_000)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT pg_backend_pid()")) != pid


def test_a_connection_that_lives_is_used_again(database):
    pids = set()
    for _ in range(5):
        with database.engine.connect() as connection:
            pids.add(connection.scalar(text("SELECT pg_backend_pid()")))
    assert len(pids) == 1
