"""Who reaches which shard: the signed context decides, the stamp confirms, and nothing is a default."""

import asyncio
import time
from typing import Any

import pytest
from patient_practices import (
    GATEWAY_KEY,
    JOHN,
    OLD_SHARD_KEY,
    SHARD_KEY,
    PatientClient,
    Practice,
    ShardServer,
    TenantService,
    eventually,
    running,
    settings_for,
)
from psycopg2 import sql
from pydantic import SecretStr

from shared.context import Caller, ContextSigner
from shared.ids import new_id
from shared.roles import Permission, allows

pytestmark = pytest.mark.anyio

EVERY_CALL: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("POST", "", JOHN),
    ("GET", "/{id}", None),
    ("PUT", "/{id}", JOHN),
    ("PATCH", "/{id}", {"age": 1}),
    ("DELETE", "/{id}", None),
    ("POST", "/{id}/restore", None),
]


async def test_an_unsigned_call_is_refused_on_every_route(service: PatientClient, practice: Practice):
    patient = await service.add(practice)
    for method, path, body in EVERY_CALL:
        url = f"/api/v1/patients{path.format(id=patient['id'])}"
        headers = {"X-Practice-Id": practice.id, "X-Shard": practice.shard, "X-Role": "owner"}
        answer = await service.http.request(method, url, json=body, headers=headers)
        assert answer.status_code == 401, (method, path)
    assert await service.names(practice) == ["John Doe"]


async def test_a_forged_or_old_signature_is_refused(service: PatientClient, practice: Practice, monkeypatch):
    forged = signed_headers(practice, key=b"x" * 32)
    altered = signed_headers(practice) | {"x-shard": "a/shard_00000000"}
    now = time.time()
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: now - 61)
        old = signed_headers(practice)
    for headers in (forged, altered, old):
        assert (await service.http.get("/api/v1/patients", headers=headers)).status_code == 401


@pytest.mark.parametrize("role", ["admin", "anonymous", "service:gateway", "", "Owner", "unheard-of"])
async def test_a_role_without_the_right_is_refused(service: PatientClient, practice: Practice, role: str):
    patient = await service.add(practice)
    for method, path, body in EVERY_CALL:
        answer = await service.call(practice.caller(role=role), method, path.format(id=patient["id"]), json=body)
        assert answer.status_code == 403, (method, path)
    assert not any(
        allows(practice.caller(role=role), permission) for permission in Permission if permission.startswith("patients")
    )
    assert await service.names(practice) == ["John Doe"]


@pytest.mark.parametrize(
    "shard",
    ["", "shard_0123456789", "a/", "a/postgres", "a/template1", "A/shard_01234567", "a/shard_0123456 ", "a/shard_x;"],
)
async def test_a_missing_or_malformed_shard_is_a_named_error(service: PatientClient, practice: Practice, shard: str):
    answer = await service.call(practice.caller(shard=shard), "GET")
    assert (answer.status_code, answer.json()["type"]) == (400, "/errors/malformed-shard")


@pytest.mark.parametrize("practice_id", ["", "x", "{018f0000-0000-7000-8000-000000000000}"])
async def test_a_missing_or_malformed_practice_is_a_named_error(
    service: PatientClient, practice: Practice, practice_id: str
):
    answer = await service.call(practice.caller(practice_id=practice_id), "GET")
    assert (answer.status_code, answer.json()["type"]) == (400, "/errors/malformed-practice")


async def test_an_unknown_server_is_a_named_error_and_asks_at_most_once_a_second(
    service: PatientClient, practice: Practice, tenant: TenantService
):
    await service.names(practice)
    asked = tenant.asked
    caller = practice.caller(shard=f"zz/{practice.database}")
    answers = await asyncio.gather(*(service.call(caller, "GET") for _ in range(50)))
    assert {(answer.status_code, answer.json()["type"]) for answer in answers} == {
        (503, "/errors/unknown-shard-server")
    }
    assert "retry-after" in answers[0].headers
    assert tenant.asked - asked <= 2


async def test_the_first_call_on_a_server_named_a_moment_ago_is_answered(
    service: PatientClient, practice: Practice, tenant: TenantService, shard_server: ShardServer
):
    """Though tenant-service was asked less than a second ago, and knew nothing of it."""
    unknown = await service.call(practice.caller(shard=f"zz/{practice.database}"), "GET")
    assert unknown.status_code == 503
    tenant.name("new", shard_server.postgres)
    elsewhere = Practice(practice.id, practice.database, "new")
    assert (await service.call(elsewhere, "GET")).status_code == 200


async def test_a_servers_new_protection_holds_for_new_connections(
    service: PatientClient,
    practice: Practice,
    other_practice: Practice,
    tenant: TenantService,
    shard_server: ShardServer,
):
    await service.names(practice)
    tenant.name("a", shard_server.postgres, sslmode="require")
    asked = tenant.asked
    await service.call(practice.caller(shard=f"zz/{practice.database}"), "GET")
    assert tenant.asked > asked
    refused = await service.call(other_practice, "GET")
    assert (refused.status_code, refused.json()["type"]) == (503, "/errors/shard-unavailable")
    assert await service.names(practice) == []  # its connection is there


async def test_a_server_that_is_named_no_more_harms_no_other(
    service: PatientClient,
    practice: Practice,
    other_practice: Practice,
    tenant: TenantService,
    shard_server: ShardServer,
):
    tenant.name("gone", shard_server.postgres)
    left_behind = Practice(other_practice.id, other_practice.database, "gone")
    await service.add(left_behind)
    tenant.servers = [entry for entry in tenant.servers if entry["key"] != "gone"]
    await service.call(practice.caller(shard=f"zz/{practice.database}"), "GET")
    assert await service.names(left_behind) == ["John Doe"]  # by the connection that is open
    shard_server.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (other_practice.database,)
    )
    await eventually(lambda: service.answers(left_behind, 503))
    assert await service.names(practice) == []
    assert (await service.call(left_behind, "GET")).json()["type"] == "/errors/unknown-shard-server"
    tenant.name("gone", shard_server.postgres)
    assert await service.names(left_behind) == ["John Doe"]


async def test_a_shard_with_another_stamp_gives_nothing(
    service: PatientClient, practice: Practice, shard_server: ShardServer, capsys
):
    wrong = shard_server.practice(stamp=practice.id)
    unstamped = shard_server.practice()
    shard_server.run(sql.SQL("ALTER DATABASE {} RESET ALL").format(sql.Identifier(unstamped.database)))
    for shard in (wrong, unstamped):
        for method, path, body in EVERY_CALL:
            answer = await service.call(shard, method, path.format(id=new_id()), json=body)
            if method in {"GET", "POST"} and not path:
                assert (answer.status_code, answer.json()["type"]) == (503, "/errors/wrong-shard")
            assert answer.status_code in {404, 503}
            assert "result" not in answer.json()
        assert shard_server.run("SELECT count(*) FROM patients", database=shard.database) == [(0,)]


async def test_a_directory_that_confuses_two_practices_shows_nobodys_rows(
    service: PatientClient, practice: Practice, other_practice: Practice
):
    await service.add(other_practice, name="Not yours")
    answer = await service.call(practice.caller(shard=other_practice.shard), "GET")
    assert (answer.status_code, answer.json()["type"]) == (503, "/errors/wrong-shard")
    assert "Not yours" not in answer.text
    assert await service.names(other_practice) == ["Not yours"]


async def test_a_database_that_is_gone_is_answered_as_moved(
    service: PatientClient, practice: Practice, shard_server: ShardServer
):
    await service.add(practice)
    shard_server.drop(practice)
    answers = [await service.call(practice, "GET"), await service.call(practice, "POST", json=JOHN)]
    assert {(answer.status_code, answer.json()["type"]) for answer in answers} == {(421, "/errors/shard-moved")}
    never_there = Caller(practice_id=str(new_id()), shard="a/shard_0123456789", role="owner")
    assert (await service.call(never_there, "GET")).status_code == 421


@pytest.mark.parametrize(
    "fence",
    [
        "ALTER ROLE {0} NOLOGIN",
        "REVOKE CONNECT ON DATABASE {0} FROM {0}",
        "ALTER DATABASE {0} ALLOW_CONNECTIONS false",
        "ALTER ROLE {0} PASSWORD 'another-one'",
    ],
)
async def test_a_shard_closed_to_its_role_is_answered_as_moved(
    service: PatientClient, practice: Practice, shard_server: ShardServer, fence: str
):
    await service.names(practice)
    shard_server.run(sql.SQL(fence).format(sql.Identifier(practice.database)))
    shard_server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (practice.database,))
    await eventually(lambda: service.answers(practice, 421))  # calls under way meanwhile are answered with 503
    answer = await service.call(practice, "POST", json=JOHN)
    assert (answer.status_code, answer.json()["type"]) == (421, "/errors/shard-moved")


async def test_a_rotated_secret_opens_old_and_new_shards(tenant: TenantService, shard_server: ShardServer):
    old, new = shard_server.practice(key=OLD_SHARD_KEY), shard_server.practice(key=SHARD_KEY)
    both = SecretStr(f"{SHARD_KEY.decode()},{OLD_SHARD_KEY.decode()}")
    async with running(settings_for(tenant, shard_secret=both)) as service:
        assert [await service.names(old), await service.names(new)] == [[], []]
    async with running(settings_for(tenant)) as service:
        assert (await service.call(old, "GET")).status_code == 421


async def test_a_session_is_the_shards_own_role_in_utc_and_names_itself(
    service: PatientClient, practice: Practice, shard_server: ShardServer
):
    await service.names(practice)
    sessions = shard_server.run(
        "SELECT datname, application_name FROM pg_stat_activity WHERE usename = %s", (practice.database,)
    )
    assert sessions == [(practice.database, "gowebbo-patient-service")]
    shard_server.run(sql.SQL("ALTER ROLE {} SET timezone = 'Asia/Kolkata'").format(sql.Identifier(practice.database)))
    before = (await service.add(practice))["created_at"]
    shard_server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (practice.database,))
    await eventually(lambda: service.answers(practice, 200))
    answer = await service.call(practice, "GET")
    assert answer.json()["result"]["data"][0]["created_at"] == before


async def test_every_route_of_the_document_is_among_those_tested(service: PatientClient, practice: Practice):
    document = (await service.http.get("/openapi.json", headers=signed_headers(practice))).json()
    documented = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    tested = {(method, f"/api/v1/patients{path}".replace("{id}", "{patient_id}")) for method, path, _ in EVERY_CALL}
    assert documented == tested
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert operation["summary"], (method, path)
            assert {"401", "403", "422", "503"} <= operation["responses"].keys()
    changes = document["components"]["schemas"]["PatientChanges"]["properties"]
    assert not any("default" in member for member in changes.values())


def signed_headers(practice: Practice, *, key: bytes = GATEWAY_KEY) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in ContextSigner([key]).headers(practice.caller())}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE alembic_version SET version_num = '9999'",
        "UPDATE alembic_version SET version_num = '0000'",
        "DELETE FROM alembic_version",
        "INSERT INTO alembic_version VALUES ('0001')",
        "ALTER TABLE alembic_version RENAME version_num TO other",
        "REVOKE ALL ON alembic_version FROM shard_rw",
        "DROP TABLE alembic_version",
    ],
)
async def test_a_shard_that_is_not_as_far_as_this_service_needs_it_is_never_used(
    service: PatientClient, shard_server: ShardServer, other_practice: Practice, change: str
):
    practice = shard_server.practice()
    shard_server.run(change, database=practice.database)
    for method, path, body in EVERY_CALL:
        answer = await service.call(practice, method, path.format(id=new_id()), json=body)
        assert (answer.status_code, answer.json()["type"]) == (503, "/errors/shard-maintenance"), (method, path)
        assert "maintenance" in answer.json()["message"]
        assert int(answer.headers["retry-after"]) > 0
    assert shard_server.sessions(practice) == 0
    assert await service.names(other_practice) == []


async def test_a_shard_is_used_at_once_when_it_is_there(service: PatientClient, shard_server: ShardServer):
    practice = shard_server.practice()
    shard_server.run("UPDATE alembic_version SET version_num = '0000'", database=practice.database)
    assert await service.answers(practice, 503)
    shard_server.run("UPDATE alembic_version SET version_num = '0001'", database=practice.database)
    assert await service.names(practice) == []


async def test_a_strangers_shard_is_told_as_that_however_far_it_is(service: PatientClient, shard_server: ShardServer):
    practice = shard_server.practice(stamp=str(new_id()))
    shard_server.run("UPDATE alembic_version SET version_num = '0000'", database=practice.database)
    answer = await service.call(practice, "GET")
    assert (answer.status_code, answer.json()["type"]) == (503, "/errors/wrong-shard")
