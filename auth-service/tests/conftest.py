"""A migrated central database for each test, and the service on it."""

import contextlib
import secrets
from collections.abc import Callable, Iterator

import psycopg2
import pytest
import redis
from auth_support import GATEWAY_SECRET, JWT_SECRET, Auth, Central, Client, FakeTenant, serving
from psycopg2 import sql

from auth_service.config import DatabaseSettings, Settings
from auth_service.counting import PREFIX
from auth_service.database import Database
from auth_service.main import create_app
from auth_service.migrations import migrate
from shared.events import STREAM


def _execute(postgres, statement, *, dbname="postgres"):
    with contextlib.closing(psycopg2.connect(postgres.dsn(dbname))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)


@pytest.fixture(scope="session")
def auth_role(postgres):
    """A login role that owns schema `auth` and nothing else, as in production."""
    name, password = f"auth_test_{secrets.token_hex(4)}", secrets.token_hex(16)
    _execute(postgres, sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(password)))
    return name, password


@pytest.fixture(scope="session")
def make_database(postgres, auth_role) -> Callable[..., dict]:
    """Makes a central database (empty schema, or a copy of another one) and returns its settings."""

    def make(template: str = "template1") -> dict:
        name = f"auth_{secrets.token_hex(6)}"
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        _execute(postgres, copy)
        if template == "template1":
            schema = sql.SQL("CREATE SCHEMA auth AUTHORIZATION {}").format(sql.Identifier(auth_role[0]))
            _execute(postgres, schema, dbname=name)
        return {
            "db_host": postgres.host,
            "db_port": postgres.port,
            "db_name": name,
            "db_user": auth_role[0],
            "db_pass": auth_role[1],
            "gateway_secret": GATEWAY_SECRET,
        }

    return make


@pytest.fixture(scope="session")
def migrated_template(make_database) -> str:
    settings = make_database()
    database = Database(DatabaseSettings(_env_file=None, **settings))
    migrate(database.engine)
    database.close()
    return settings["db_name"]


@pytest.fixture
def database_settings(postgres, make_database, migrated_template) -> Iterator[dict]:
    settings = make_database(migrated_template)
    yield settings
    _execute(postgres, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(settings["db_name"])))


@pytest.fixture
def central(postgres, database_settings) -> Iterator[Central]:
    found = Central(postgres.dsn(database_settings["db_name"]))
    yield found
    found.close()


@pytest.fixture
def database(database_settings) -> Iterator[Database]:
    """The rules' way to the central database, without the service."""
    found = Database(DatabaseSettings(_env_file=None, **database_settings))
    yield found
    found.close()


@pytest.fixture
def tenant() -> Iterator[FakeTenant]:
    found = FakeTenant()
    yield found
    found.kill()


@pytest.fixture
def stream(redis_server) -> Iterator[redis.Redis]:
    """An empty stream."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.delete(STREAM)
        yield client
        client.delete(STREAM)


@pytest.fixture
def store(redis_server) -> Iterator[redis.Redis]:
    """Where replicas count; nothing of what another test counted is left."""
    with redis.Redis.from_url(redis_server.url) as client:
        for key in client.scan_iter(f"{PREFIX}*"):
            client.delete(key)
        yield client


@pytest.fixture
def auth_settings(database_settings, tenant, redis_server, store) -> Callable[..., Settings]:
    """Settings of the service for this test; arguments replace what they name."""

    def make(**changed) -> Settings:
        chosen = {
            "jwt_secret": JWT_SECRET,
            "bcrypt_cost": 10,
            "signups_per_address": 0,
            "password_mails_per_address": 0,
            "tenant_service_url": tenant.url,
            "redis_host": redis_server.host,
            "redis_port": redis_server.port,
            "redis_pass": redis_server.password,
        }
        return Settings(_env_file=None, **(database_settings | chosen | changed))

    return make


@pytest.fixture
def start_auth(auth_settings) -> Iterator[Callable[..., Auth]]:
    """Starts the service; every one that was started ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(**changed) -> Auth:
            settings = auth_settings(**changed)
            app = create_app(settings)
            client = Client(stack.enter_context(serving(app)))
            stack.callback(client.http.close)
            return Auth(app, client, settings)

        yield start


@pytest.fixture
def auth(start_auth) -> Auth:
    return start_auth()


@pytest.fixture
def client(auth) -> Client:
    return auth.client


@pytest.fixture(autouse=True)
def pace(monkeypatch):
    """What is done every few seconds in production is done at once here; a busy machine gets the time it needs."""
    monkeypatch.setattr("auth_service.main.EVERY_S", 0.2)
    monkeypatch.setattr("auth_service.main.CLOSE_EVERY_S", 0.2)
    monkeypatch.setattr("auth_service.signup.BUDGET_S", 60.0)
    monkeypatch.setattr("auth_service.passwords.MAX_WAIT_S", 30.0)
    monkeypatch.setattr("auth_service.throttle.MAX_WAIT_S", 30.0)
    monkeypatch.setattr("auth_service.redis_clients._COUNTING_TIMEOUT_S", 5.0)
