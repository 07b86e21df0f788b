"""What the tests of shard servers share: a server that is changed and made as new again, and what the API tells."""

from collections.abc import Callable
from typing import Any

import httpx
import psycopg2
from tenant_stand import ADMIN, Tenants, execute_at, query_at, wait_for

from gowebbo_stack.testing import PostgresServer
from shared.ids import new_id
from tenant_service import server_check

SERVERS = "/api/v1/admin/servers"
SCRAM_ONLY = "host all all all scram-sha-256\n"
SHOWN = {"key", "host", "port", "state", "practices", "capacity", "connections"}
Add = Callable[..., httpx.Response]
"""Adds a server by the API; the fixture `add`."""


def set_hba(server: PostgresServer, lines: str) -> None:
    """Changes whom the server lets in, and how; the superuser keeps its way."""
    (server.data / "pg_hba.conf").write_text(f"host all {server.superuser} all scram-sha-256\n{lines}")
    execute_at(server.dsn(), "SELECT pg_reload_conf()")


def let_in_by(server: PostgresServer, lines: str, *, role: str, told: str) -> None:
    """The same, and waits until it is so."""
    set_hba(server, lines)

    def refused() -> bool:
        try:
            psycopg2.connect(host=server.host, port=server.port, user=role, password="x", dbname=role).close()
        except psycopg2.OperationalError as fault:
            return told in str(fault)
        return False

    wait_for(refused)


def make_pristine(server: PostgresServer) -> None:
    """Takes away whatever a test has made on a server: nobody has prepared it then."""
    set_hba(server, SCRAM_ONLY)
    for (name,) in query_at(server.dsn(), r"SELECT datname FROM pg_database WHERE datname ~ '^(shard|gowebbo)_'"):
        execute_at(server.dsn(), f'ALTER DATABASE "{name}" IS_TEMPLATE false')
        execute_at(server.dsn(), f'DROP DATABASE "{name}" WITH (FORCE)')
    for database in server_check.PUBLIC_DATABASES:
        execute_at(server.dsn(), f"GRANT CONNECT, TEMPORARY ON DATABASE {database} TO PUBLIC")
    roles = query_at(
        server.dsn(),
        "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND oid > 16383 ORDER BY rolname = 'shard_rw'",
    )
    for (name,) in roles:
        execute_at(server.dsn(), f'DROP OWNED BY "{name}"')
        execute_at(server.dsn(), f'DROP ROLE "{name}"')


def listed(tenants: Tenants) -> dict[str, dict[str, Any]]:
    answer = tenants.call("GET", SERVERS, caller=ADMIN)
    return {server["key"]: server for server in answer.json()["result"]["data"]}


def faults(answer: httpx.Response) -> dict[str, str]:
    assert (answer.status_code, answer.json()["type"]) == (422, "/errors/server-unsuitable"), answer.text
    return {fault["field"]: fault["message"] for fault in answer.json()["errors"]}


def sign_up(tenants: Tenants, count: int) -> list[str]:
    """The servers that so many new practices went to."""
    answers = [tenants.put(new_id()) for _ in range(count)]
    assert {answer.status_code for answer in answers} <= {200, 201}, [answer.text for answer in answers]
    return [answer.json()["shard"].partition("/")[0] for answer in answers]
