"""The isolation report: a healthy fleet is all right, and each damage shows at the practice that it was done to."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from tenant_stand import ADMIN, AUTH, Fleet, Tenants, execute_at, new_fleet, serving, wait_for

from gowebbo_stack.testing import PostgresServer
from shared.context import Caller
from shared.ids import new_id
from shared.shards import shard_password
from tenant_service import isolation
from tenant_service.scram import scram_verifier
from tenant_service.storage.directory import Shard

PATH = "/api/v1/admin/isolation"
CHECKS = [
    "open",
    "public",
    "connect",
    "stamps",
    "role",
    "role_rights",
    "role_membership",
    "role_settings",
    "log_in",
    "wrong_password",
    "other_practice",
    "central_database",
    "postgres",
    "template1",
    "tables",
    "owner",
    "schema",
    "copies",
]
EVERYWHERE = {"other_practice", "central_database", "postgres", "template1"}
OLD_SECRET = "shards-that-were-0123456789abcdef0123456789abcdef"

Found = dict[str, dict[str, dict[str, Any]]]
"""The checks by practice and name."""


@pytest.fixture(scope="module")
def fleet(postgres: PostgresServer) -> Iterator[Fleet]:
    """One for all: whoever damages it repairs it."""
    made = new_fleet(postgres)
    made.servers.refresh()
    yield made
    made.drop_everything()


@pytest.fixture(scope="module")
def tenants(fleet: Fleet) -> Iterator[Tenants]:
    with serving(fleet) as running:
        wait_for(running.is_ready)
        yield running


@pytest.fixture(scope="module")
def shards(fleet: Fleet, tenants: Tenants) -> list[Shard]:
    made = [fleet.shard() for _ in range(3)]
    return sorted(made, key=lambda shard: shard.practice_id)


def report(tenants: Tenants, query: str = "") -> Found:
    """Every page's practices."""
    path, found = f"{PATH}?{query}", {}
    while path:
        answer = tenants.call("GET", path, caller=ADMIN)
        assert answer.status_code == 200, answer.text
        for one in answer.json()["result"]["data"]:
            found[one["id"]] = {check["name"]: check for check in one["checks"]}
        path = answer.links["next"]["url"] if "next" in answer.links else ""
    return found


def reds(found: Found) -> dict[str, set[str]]:
    """The checks that are not all right, of the practices that have any."""
    wrong = {
        practice: {name for name, check in checks.items() if not check["ok"]} for practice, checks in found.items()
    }
    return {practice: names for practice, names in wrong.items() if names}


def test_a_healthy_fleet_is_all_right(tenants: Tenants, shards: list[Shard]) -> None:
    found = report(tenants)
    assert list(found) == [str(shard.practice_id) for shard in shards]
    for checks in found.values():
        assert list(checks) == CHECKS
        assert [check for check in checks.values() if not check["ok"]] == []
    some = found[str(shards[0].practice_id)]
    assert some["log_in"]["detail"] == "by scram-sha-256, to its own database"
    for name in EVERYWHERE:
        assert "permission denied for database" in some[name]["detail"]
    assert "password authentication failed" in some["wrong_password"]["detail"]
    assert "statement_timeout 5s" in some["role_settings"]["detail"]
    assert shard_password(b"", shards[0].database)[:8] not in json.dumps(found)


@pytest.mark.parametrize(
    "case",
    [
        ("GRANT CONNECT ON DATABASE {own} TO PUBLIC", "REVOKE ALL ON DATABASE {own} FROM PUBLIC", {"public"}),
        ("GRANT TEMPORARY ON DATABASE {own} TO PUBLIC", "REVOKE ALL ON DATABASE {own} FROM PUBLIC", {"public"}),
        ("ALTER ROLE {own} SUPERUSER", "ALTER ROLE {own} NOSUPERUSER", {"role_rights", *EVERYWHERE}),
        ("ALTER ROLE {own} CREATEDB", "ALTER ROLE {own} NOCREATEDB", {"role_rights"}),
        ("ALTER ROLE {own} CREATEROLE", "ALTER ROLE {own} NOCREATEROLE", {"role_rights"}),
        ("ALTER ROLE {own} REPLICATION", "ALTER ROLE {own} NOREPLICATION", {"role_rights"}),
        ("ALTER ROLE {own} BYPASSRLS", "ALTER ROLE {own} NOBYPASSRLS", {"role_rights"}),
        ("GRANT pg_monitor TO {own}", "REVOKE pg_monitor FROM {own}", {"role_membership"}),
        (
            "GRANT shard_rw TO {own} WITH ADMIN OPTION",
            "REVOKE ADMIN OPTION FOR shard_rw FROM {own}",
            {"role_membership"},
        ),
        ("GRANT {own} TO gowebbo_auth", "REVOKE {own} FROM gowebbo_auth", {"role_membership"}),
        (
            "ALTER DATABASE {own} SET gowebbo.practice_id = '00000000-0000-7000-8000-000000000000'",
            "ALTER DATABASE {own} SET gowebbo.practice_id = '{practice}'",
            {"stamps"},
        ),
        (
            "ALTER DATABASE {own} RESET gowebbo.fleet_id",
            "ALTER DATABASE {own} SET gowebbo.fleet_id = '{fleet}'",
            {"stamps"},
        ),
        ("ALTER DATABASE {own} SET work_mem = '64MB'", "ALTER DATABASE {own} RESET work_mem", {"stamps"}),
        (
            "ALTER ROLE {own} RESET statement_timeout",
            "ALTER ROLE {own} SET statement_timeout = '5s'",
            {"role_settings"},
        ),
        ("ALTER ROLE {own} SET lock_timeout = 0", "ALTER ROLE {own} SET lock_timeout = '2s'", {"role_settings"}),
        ("ALTER ROLE {own} CONNECTION LIMIT -1", "ALTER ROLE {own} CONNECTION LIMIT 8", {"role_settings"}),
        (
            "ALTER ROLE {own} IN DATABASE {own} SET statement_timeout = 0",
            "ALTER ROLE {own} IN DATABASE {own} RESET statement_timeout",
            {"role_settings"},
        ),
        (
            "GRANT CONNECT ON DATABASE {own} TO {other}",
            "REVOKE CONNECT ON DATABASE {own} FROM {other}",
            {"connect"},
        ),
        ("GRANT CREATE ON DATABASE {own} TO {own}", "REVOKE CREATE ON DATABASE {own} FROM {own}", {"connect"}),
        ("ALTER ROLE {own} NOLOGIN", "ALTER ROLE {own} LOGIN", {"role", "log_in"}),
        (
            "ALTER DATABASE {own} ALLOW_CONNECTIONS false",
            "ALTER DATABASE {own} ALLOW_CONNECTIONS true",
            {"open", "log_in", "tables"},
        ),
        ("ALTER ROLE {own} PASSWORD 'another'", "ALTER ROLE {own} PASSWORD '{verifier}'", {"log_in"}),
    ],
)
def test_each_damage_shows_at_its_practice(
    fleet: Fleet, tenants: Tenants, shards: list[Shard], case: tuple[str, str, set[str]]
) -> None:
    damage, repair, expected = case
    before, own, after = shards
    assert own.database
    names = {
        "own": own.database,
        "other": after.database,
        "practice": own.practice_id,
        "fleet": fleet.query("SELECT id FROM tenant.fleet")[0][0],
        "verifier": scram_verifier(shard_password(fleet.settings.shard_keys[0], own.database), iterations=1),
    }
    execute_at(fleet.postgres.dsn(), damage.format(**names).replace("%", "%%"))
    try:
        assert reds(report(tenants)) == {str(own.practice_id): expected}
        assert reds(report(tenants, f"practice_id={own.practice_id}")) == {str(own.practice_id): expected}
        assert reds(report(tenants, f"practice_id={before.practice_id}")) == {}
    finally:
        execute_at(fleet.postgres.dsn(), repair.format(**names))
    assert reds(report(tenants)) == {}


@pytest.mark.parametrize(
    "case",
    [
        ("GRANT DELETE ON patients TO shard_rw", "REVOKE DELETE ON patients FROM shard_rw", {"tables", "schema"}),
        ("GRANT TRUNCATE ON patients TO {own}", "REVOKE TRUNCATE ON patients FROM {own}", {"tables", "schema"}),
        ("GRANT SELECT ON patients TO PUBLIC", "REVOKE SELECT ON patients FROM PUBLIC", {"tables", "schema"}),
        (
            "GRANT UPDATE (age) ON patients TO {other}",
            "REVOKE UPDATE (age) ON patients FROM {other}",
            {"tables", "schema"},
        ),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC", "REVOKE CREATE ON SCHEMA public FROM PUBLIC", {"tables", "schema"}),
        ("REVOKE INSERT ON patients FROM shard_rw", "GRANT INSERT ON patients TO shard_rw", {"tables", "schema"}),
        ("ALTER TABLE patients OWNER TO {own}", "ALTER TABLE patients OWNER TO gowebbo_tenant", {"owner", "schema"}),
        ("ALTER TABLE patients ADD COLUMN x int", "ALTER TABLE patients DROP COLUMN x", {"schema"}),
    ],
)
def test_each_damage_inside_a_shard_shows_at_its_practice(
    fleet: Fleet, tenants: Tenants, shards: list[Shard], case: tuple[str, str, set[str]]
) -> None:
    damage, repair, expected = case
    own, other, _ = shards
    names = {"own": own.database, "other": other.database}
    dsn = fleet.postgres.dsn(own.database or "")
    execute_at(dsn, damage.format(**names))
    try:
        assert reds(report(tenants)) == {str(own.practice_id): expected}
    finally:
        execute_at(dsn, repair.format(**names))
    assert reds(report(tenants)) == {}


def test_a_server_that_lets_everybody_in_is_red_for_all(fleet: Fleet, tenants: Tenants, shards: list[Shard]) -> None:
    hba = fleet.postgres.data / "pg_hba.conf"
    former = hba.read_text()
    own = shards[1]
    hba.write_text(f"host all {own.database} all trust\n{former}")
    execute_at(fleet.postgres.dsn(), "SELECT pg_reload_conf()")
    try:
        wait_for(lambda: reds(report(tenants)))
        assert reds(report(tenants)) == {str(own.practice_id): {"log_in", "wrong_password"}}
    finally:
        hba.write_text(former)
        execute_at(fleet.postgres.dsn(), "SELECT pg_reload_conf()")
    wait_for(lambda: not reds(report(tenants)))


def test_a_lost_database_or_role_is_told(fleet: Fleet, tenants: Tenants, shards: list[Shard]) -> None:
    lost, roleless = fleet.shard(), fleet.shard()
    try:
        execute_at(fleet.postgres.dsn(), f"DROP DATABASE {lost.database}")
        execute_at(fleet.postgres.dsn(), f"DROP OWNED BY {roleless.database}")
        execute_at(fleet.postgres.dsn(), f"DROP ROLE {roleless.database}")
        found = reds(report(tenants))
        assert found == {str(lost.practice_id): {"database"}, str(roleless.practice_id): {"role", "connect"}}
    finally:
        for shard in (lost, roleless):
            fleet.provisioning.release(shard.practice_id)


def test_an_older_secrets_password_still_proves_the_log_in(postgres: PostgresServer) -> None:
    former = new_fleet(postgres, shard_secret=OLD_SECRET)
    try:
        former.servers.refresh()
        shard = former.shard()
        values = former.settings.model_dump() | {"shard_secret": f"{'n' * 10}{new_id()},{OLD_SECRET}"}
        rotated = Fleet(postgres, former.database, type(former.settings)(_env_file=None, **values))
        with serving(rotated) as tenants:
            wait_for(tenants.is_ready)
            assert reds(report(tenants)) == {}
            assert report(tenants)[str(shard.practice_id)]["other_practice"]["detail"] == (
                "no other practice has its database on this server"
            )
        rotated.servers.close()
    finally:
        former.drop_everything()


def test_a_server_that_is_down_makes_its_practices_red(fleet: Fleet, tenants: Tenants, shards: list[Shard]) -> None:
    lost = [new_id(), new_id()]
    execute_at(
        fleet.postgres.dsn(fleet.database),
        "INSERT INTO tenant.servers (key, host, port, sslmode) VALUES ('down', '127.0.0.1', 1, 'prefer')",
    )
    for number, practice_id in enumerate(lost):
        execute_at(
            fleet.postgres.dsn(fleet.database),
            "INSERT INTO tenant.shards (practice_id, server, database, state) VALUES (%s, 'down', %s, 'ready')",
            str(practice_id),
            f"shard_lost0000{number}",
        )
    try:
        assert report(tenants)[str(lost[0])]["server"]["detail"].startswith(
            "server down can't be asked: Server down is not"
        )
        fleet.servers.refresh()
        found = report(tenants)
        assert reds(found) == {str(practice_id): {"server"} for practice_id in lost}
        assert "Connection refused" in found[str(lost[0])]["server"]["detail"]
        assert reds(report(tenants, f"practice_id={lost[1]}")) == {str(lost[1]): {"server"}}
    finally:
        execute_at(fleet.postgres.dsn(fleet.database), "DELETE FROM tenant.shards WHERE server = 'down'")
        execute_at(fleet.postgres.dsn(fleet.database), "DELETE FROM tenant.servers WHERE key = 'down'")
        fleet.servers.refresh()


def test_a_server_that_goes_away_meanwhile_is_not_asked_again(
    tenants: Tenants, shards: list[Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def check(_: object, database: str, __: object) -> list[isolation.Check]:
        asked.append(database)
        raise psycopg2.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(isolation, "check_practice", check)
    assert reds(report(tenants)) == {str(shard.practice_id): {"server"} for shard in shards}
    assert asked == [shards[0].database]


@pytest.mark.usefixtures("shards")
def test_a_page_ends_by_its_limit_or_by_its_time(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = report(tenants)
    assert list(report(tenants, "limit=2")) == list(everything)
    first = tenants.call("GET", f"{PATH}?limit=2", caller=ADMIN).json()["result"]
    assert (len(first["data"]), first["total"], "next_cursor" in first) == (2, 3, True)
    assert "next_cursor" not in tenants.call("GET", f"{PATH}?limit=3", caller=ADMIN).json()["result"]
    monkeypatch.setattr(isolation, "PAGE_TIME_S", 0)
    first = tenants.call("GET", f"{PATH}?limit=3", caller=ADMIN).json()["result"]
    assert (len(first["data"]), "next_cursor" in first) == (1, True)
    assert list(report(tenants)) == list(everything)


def test_a_practice_without_a_shard_in_use_is_told(fleet: Fleet, tenants: Tenants) -> None:
    undone = fleet.shard()
    fleet.provisioning.release(undone.practice_id)
    for practice_id in (new_id(), undone.practice_id):
        answer = tenants.call("GET", f"{PATH}?practice_id={practice_id}", caller=ADMIN)
        assert (answer.status_code, answer.json()["type"]) == (404, "/errors/shard-unknown")
    for query, status in (("practice_id=x", 422), ("limit=0", 422), ("limit=51", 422), ("cursor=x", 400)):
        assert tenants.call("GET", f"{PATH}?{query}", caller=ADMIN).status_code == status


def test_only_the_platforms_admin_sees_the_report(tenants: Tenants) -> None:
    for caller in (Caller(), Caller(role="owner", practice_id=str(new_id())), AUTH):
        assert tenants.call("GET", PATH, caller=caller).status_code == 403
    assert tenants.call("GET", PATH, caller=None).status_code == 401
