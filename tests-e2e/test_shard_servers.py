"""A second PostgreSQL, another version with TLS, joins a running stack, takes practices, dies and comes back."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_api import PATIENTS, Api, Practice, new_sign_up
from e2e_stack import EmbeddedStack, StackFactory, column, eventually, free_port, new_secret, rows

from gowebbo_stack.testing import PostgresServer, SecondPostgres, running_postgres

NOTICED_WITHIN_S = 30
"""tenant-service looks at its servers every 10 s, patient-service when a connection fails."""
EACH = 3
PRACTICES = (
    "SELECT setdatabase FROM pg_db_role_setting WHERE setrole = 0"
    " AND strpos(array_to_string(setconfig, ','), 'gowebbo.practice_id=') > 0"
)
"""Of a server: databases that belong to a practice."""


class Second:
    """The second server: one that can be killed and started again."""

    def __init__(self, folder: Path, how: SecondPostgres) -> None:
        self.port, self.password = free_port(), new_secret()
        self.authority = str(how.authority)
        self._folder, self._how = folder, how
        self._running = contextlib.ExitStack()

    def start(self) -> PostgresServer:
        """Starts it, on its data."""
        return self._running.enter_context(
            running_postgres(
                self._folder,
                port=self.port,
                password=self.password,
                programs=self._how.programs,
                settings=self._how.settings,
            )
        )

    def stop(self) -> None:
        """Ends it; whoever is connected is cut off."""
        self._running.close()


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, second_postgres: SecondPostgres) -> Iterator[Second]:
    """The server, running."""
    server = Second(tmp_path_factory.mktemp("second"), second_postgres)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def fleet(new_stack: StackFactory, second: Second) -> EmbeddedStack:
    """A stack that is told its own server only, and the second one's credentials."""
    return new_stack(EMBEDDED_SERVERS="1", SERVER_B_USER="postgres", SERVER_B_PASS=second.password).start()


@pytest.fixture(scope="module")
def api(fleet: EmbeddedStack) -> Iterator[Api]:
    client = Api(fleet.url)
    yield client
    client.close()


def servers(shown: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {server["key"]: server for server in shown}


def places(stack: EmbeddedStack) -> dict[str, str]:
    """The server of each practice, by its id."""
    return {practice["id"]: practice["server"] for practice in stack.command_json("practices", "list")}


def statuses(practices: list[Practice]) -> set[int]:
    return {practice.get(PATIENTS).status_code for practice in practices}


def test_a_server_joins_takes_practices_dies_and_comes_back(fleet: EmbeddedStack, api: Api, second: Second) -> None:
    first = Practice.join(api)
    first.new_patient()
    place = ("servers", "add", "b", "--host", "127.0.0.1", "--port", str(second.port))
    unproved = fleet.command(*place, "--sslmode", "verify-full", "--sslrootcert", "/nowhere.pem")
    assert unproved.returncode == 1
    assert "/nowhere.pem" in unproved.stderr
    tls = ("--sslmode", "verify-full", "--sslrootcert", second.authority)
    shown = servers(fleet.command_json(*place, *tls))
    assert {key: one["state"] for key, one in shown.items()} == {"a": "open", "b": "open"}

    practices = [first]
    for _ in range(2 * EACH):  # the first patient call on a new server works at once
        joined = Practice.join(api)
        joined.new_patient()
        practices.append(joined)
    where = places(fleet)
    assert min(Counter(where.values()).values()) >= EACH
    on_a = [practice for practice in practices if where[practice.id] == "a"]
    on_b = [practice for practice in practices if where[practice.id] == "b"]
    assert statuses(practices) == {200}
    dsn = f"postgresql://postgres:{second.password}@127.0.0.1:{second.port}/postgres"
    assert len(column(dsn, PRACTICES)) == len(on_b)
    # every connection of the services is encrypted
    assert rows(
        dsn,
        "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
        " WHERE usename <> 'postgres' OR starts_with(application_name, 'gowebbo')",
    ) == [(True,)]

    assert fleet.command_json("practices", "verify-isolation")["ok"] is True
    drained = servers(fleet.command_json("servers", "drain", "a", "--keep"))
    assert drained["a"]["state"] == "draining"
    late = [Practice.join(api) for _ in range(2)]
    assert {places(fleet)[practice.id] for practice in late} == {"b"}
    assert statuses(practices + late) == {200}
    assert servers(fleet.command_json("servers", "open", "a"))["a"]["state"] == "open"

    second.stop()
    eventually(lambda: statuses(on_b + late) == {503}, "503 for its practices", timeout_s=NOTICED_WITHIN_S)
    assert statuses(on_a) == {200}
    report = fleet.command("practices", "verify-isolation", on_b[0].id)
    assert report.returncode == 1
    assert "can't be asked" in report.stdout
    eventually(
        lambda: api.post("/api/v1/practices/signup", json=new_sign_up()).status_code == 201,
        "sign-ups go to the other server",
        timeout_s=NOTICED_WITHIN_S,
    )
    assert servers(fleet.command_json("servers", "list"))["b"]["connections"] is None
    assert fleet.is_ready()

    second.start()
    eventually(lambda: statuses(practices + late) == {200}, "all practices work", timeout_s=NOTICED_WITHIN_S)
    for practice in on_b:
        assert len(practice.patients()) == 1
    eventually(
        lambda: servers(fleet.command_json("servers", "list"))["b"]["connections"],
        "it is taken up again",
        timeout_s=NOTICED_WITHIN_S,
    )
    assert fleet.command_json("practices", "verify-isolation")["ok"] is True
