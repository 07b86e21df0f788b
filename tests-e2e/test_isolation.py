"""Nobody reaches a stranger's patients: not with a stranger's ids, not with forged headers, not in PostgreSQL."""

import itertools
from collections import defaultdict
from collections.abc import Callable

import psycopg2
import pytest
from e2e_api import PATIENT, PATIENTS, Api, Practice, assert_error, new_uuid, patient_path, without_instance
from e2e_stack import EmbeddedStack, column, eventually_none, psql, rows, with_database

from shared.shards import shard_password

METHODS = ("get", "post", "put", "patch", "delete")
HEADER_VALUES = {
    "X-Practice-Id": "{practice}",
    "X-Shard": "a/{database}",
    "X-User-Id": "{practice}",
    "X-Session-Id": "{practice}",
    "X-Role": "admin",
    "X-Scope": "patients:read",
    "X-Client-Address": "127.0.0.1",
    "X-Gateway-Signature": "1790000000.{hex}",
    "X-Gateway-Anything": "1",
    "X-Forwarded-For": "10.0.0.1",
    "X-Forwarded-Host": "internal",
    "X-Forwarded-User": "{practice}",
    "Forwarded": "for=10.0.0.1;host=internal",
}


def _routes_with_an_id(api: Api) -> list[tuple[str, str]]:
    document = api.get("/openapi.json").json()
    return [
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in METHODS
        if method in operations and "{" in path
    ]


def _fill(path: str, value: str) -> str:
    return "/".join(value if part.startswith("{") else part for part in path.split("/"))


@pytest.fixture(scope="module")
def databases(stack: EmbeddedStack, practice: Practice, other_practice: Practice) -> tuple[str, str]:
    """The databases of both practices."""
    listed = {one["id"]: one["database"] for one in stack.command_json("practices", "list")}
    return listed[practice.id], listed[other_practice.id]


# ids


_LISTS = {
    "/api/v1/staff": "person_id",
    "/api/v1/staff/invitations": "invitation_id",
    "/api/v1/api-keys": "key_id",
    "/api/v1/auth/sessions": "session_id",
}
"""Where a practice sees what it has, and what the API document calls its ids."""


def _owned_by(practice: Practice) -> dict[str, str]:
    """An id of each kind of thing that a practice has beside patients."""
    invited = practice.call(
        "POST", "/api/v1/staff/invitations", json={"email": f"i-{practice.email}", "role": "auditor"}
    )
    made = practice.call("POST", "/api/v1/api-keys", json={"name": "Lab", "permissions": ["patients:read"]})
    assert (invited.status_code, made.status_code) == (201, 201)
    return {name: practice.get(path).json()["result"]["data"][0]["id"] for path, name in _LISTS.items()}


def test_a_foreign_id_is_answered_like_an_unknown_one_on_every_route(
    api: Api, practice: Practice, other_practice: Practice
) -> None:
    """The matrix comes from the API document, so that no route can be forgotten."""
    patient = practice.new_patient(name="Not for strangers")
    routes = _routes_with_an_id(api)
    assert {("GET", f"{PATIENTS}/{{patient_id}}"), ("POST", f"{PATIENTS}/{{patient_id}}/restore")} <= {
        (method, "/".join("{patient_id}" if part.startswith("{") else part for part in path.split("/")))
        for method, path in routes
    }
    owned = _owned_by(practice) | {"patient_id": patient["id"]}
    for method, path in routes:
        sent = {"role": "auditor"} if path.startswith("/api/v1/staff/") else PATIENT
        body = {"json": sent} if method in {"PUT", "PATCH"} else {}
        # the admin's routes take other ids: those of servers and jobs
        foreign = other_practice.call(method, path.format_map(defaultdict(lambda: patient["id"], owned)), **body)
        unknown = other_practice.call(method, _fill(path, new_uuid()), **body)
        # no practice's token opens the admin's door, whatever is behind it
        assert foreign.status_code == (401 if path.startswith("/api/v1/admin/") else 404), (method, path)
        assert without_instance(foreign) == without_instance(unknown), (method, path)
        assert set(foreign.headers) == set(unknown.headers), (method, path)
    assert practice.get(patient_path(patient["id"])).json()["result"] == patient
    for path, name in _LISTS.items():
        assert owned[name] in {one["id"] for one in practice.get(path).json()["result"]["data"]}, name


def test_a_deleted_patient_of_a_stranger_cannot_be_restored(practice: Practice, other_practice: Practice) -> None:
    patient = practice.new_patient()
    practice.call("DELETE", patient_path(patient["id"]))
    assert_error(other_practice.call("POST", patient_path(patient["id"], "/restore")), 404)
    assert_error(practice.get(patient_path(patient["id"])), 404)


def test_lists_hold_ones_own_patients_only(practice: Practice, other_practice: Practice) -> None:
    mine, theirs = practice.new_patient(), other_practice.new_patient()
    assert theirs["id"] not in {one["id"] for one in practice.patients(limit=1000)}
    assert mine["id"] not in {one["id"] for one in other_practice.patients(limit=1000)}


def test_a_strangers_cursor_shows_nothing_of_the_stranger(practice: Practice, other_practice: Practice) -> None:
    theirs = {other_practice.new_patient()["id"] for _ in range(3)}
    cursor = other_practice.get(PATIENTS, params={"limit": 1}).json()["result"]["next_cursor"]
    assert not theirs & {one["id"] for one in practice.patients(cursor=cursor, limit=1000)}


# headers


def _spellings(name: str) -> list[str]:
    flipped = "".join(c.upper() if n % 2 else c.lower() for n, c in enumerate(name))
    underscored = name.replace("-", "_")
    return [name, name.lower(), name.upper(), flipped, underscored, underscored.lower(), underscored.upper()]


def _variants(values: dict[str, str]) -> list[list[tuple[str, str]]]:
    """More than 200 ways to send internal headers: spellings, duplicates, pairs, `Connection` and all at once."""
    single = [[(spelling, value)] for name, value in values.items() for spelling in _spellings(name)]
    twice = [[(name, value), (name.lower(), "")] for name, value in values.items()]
    mixed = [[(name.replace("-", "_"), value), (name, value)] for name, value in values.items()]
    named = [[(name, value), ("Connection", f"{name}, keep-alive")] for name, value in values.items()]
    pairs = [[first, second] for first, second in itertools.combinations(values.items(), 2)]
    together = [list(values.items()), [(name.replace("-", "_"), value) for name, value in values.items()]]
    dropping = [[("Connection", f"keep-alive, {name}")] for name in ("X-Shard", "X-Gateway-Signature", "X-Practice-Id")]
    return [*single, *twice, *mixed, *named, *pairs, *together, *dropping]


def test_forged_internal_headers_have_no_effect(
    api: Api, practice: Practice, other_practice: Practice, databases: tuple[str, str]
) -> None:
    """The gateway deletes them all. With a token the answer is one's own, without one it stays 401."""
    practice.new_patient(name="Not for strangers")
    words = {"practice": practice.id, "database": databases[0], "hex": "0" * 64}
    values = {name: value.format(**words) for name, value in HEADER_VALUES.items()}
    variants = _variants(values)
    assert len(variants) >= 200
    honest = other_practice.get(PATIENTS)
    for headers in variants:
        answer = other_practice.get(PATIENTS, headers=headers)
        assert (answer.status_code, answer.json()) == (200, honest.json()), headers
        assert_error(api.get(PATIENTS, headers=headers), 401)


def test_forged_headers_give_no_access_to_the_admins_routes(api: Api, practice: Practice) -> None:
    for headers in ({"X-Role": "admin"}, {"X_Role": "admin"}, {"X-Role": "service:gateway"}, {"x-ROLE": "admin"}):
        for path in ("/api/v1/admin/practices", "/api/v1/admin/servers", "/api/v1/admin/shards"):
            assert practice.get(path, headers=headers).status_code in {401, 403}
            assert_error(api.get(path, headers=headers), 401)


# PostgreSQL


def _log_in(dsn: str, role: str, password: str, database: str) -> psycopg2.extensions.connection:
    parts = psycopg2.extensions.parse_dsn(dsn) | {"user": role, "password": password, "dbname": database}
    return psycopg2.connect(**parts, connect_timeout=5)


@pytest.fixture(scope="module")
def own_password(stack: EmbeddedStack, databases: tuple[str, str]) -> str:
    """The password that the first practice's role really has."""
    return shard_password(stack.environment["SHARD_SECRET"].encode(), databases[0])


def test_a_shards_role_enters_its_own_database_and_no_other(
    databases: tuple[str, str], own_password: str, superuser_dsn: str, central_database: str
) -> None:
    """By trying: with the role's real password."""
    own, foreign = databases
    _log_in(superuser_dsn, own, own_password, own).close()
    for database in (foreign, central_database, "postgres", "template1", "template0"):
        with pytest.raises(psycopg2.OperationalError):
            _log_in(superuser_dsn, own, own_password, database)


def test_a_shards_role_may_read_add_and_change_rows_and_nothing_else(
    databases: tuple[str, str], own_password: str, superuser_dsn: str, practice: Practice
) -> None:
    """It can never delete a row or touch the schema."""
    practice.new_patient()
    connection = _log_in(superuser_dsn, databases[0], own_password, databases[0])
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) > 0 FROM patients")
        assert cursor.fetchone() == (True,)
        for forbidden in (
            "DELETE FROM patients",
            "TRUNCATE patients",
            "DROP TABLE patients",
            "ALTER TABLE patients ADD COLUMN x int",
            "CREATE TABLE x (y int)",
            "CREATE SCHEMA x",
            "CREATE TEMPORARY TABLE x (y int)",
            "CREATE DATABASE x",
            "CREATE ROLE x",
            "SET ROLE postgres",
            "SET ROLE gowebbo_tenant",
            f"ALTER DATABASE {databases[0]} SET gowebbo.practice_id = 'x'",
            "SELECT pg_read_file('/etc/passwd')",
            "COPY patients TO PROGRAM 'cat'",
        ):
            with pytest.raises(psycopg2.Error) as refused:
                cursor.execute(forbidden)
            assert refused.value.pgcode in {"42501", "42704", "42P01"}, forbidden
        cursor.execute("SELECT name, setting FROM pg_settings WHERE name LIKE '%timeout'")
        limits = dict(cursor.fetchall())
    connection.close()
    assert (limits["statement_timeout"], limits["lock_timeout"]) == ("5000", "2000")
    assert limits["idle_in_transaction_session_timeout"] == "10000"


def test_no_role_but_the_superuser_has_power_over_the_server(superuser_dsn: str) -> None:
    powerful = rows(
        superuser_dsn,
        "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND (rolsuper OR rolbypassrls OR rolreplication)",
    )
    assert len(powerful) == 1
    creators = column(
        superuser_dsn,
        "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND NOT rolsuper AND (rolcreatedb OR rolcreaterole)",
    )
    assert creators == ["gowebbo_tenant"]


def test_every_password_is_stored_as_scram(superuser_dsn: str) -> None:
    stored = column(superuser_dsn, "SELECT rolpassword FROM pg_authid WHERE rolcanlogin")
    assert all(verifier.startswith("SCRAM-SHA-256$") for verifier in stored)


def test_only_shards_have_names_that_look_like_shards(stack: EmbeddedStack, superuser_dsn: str) -> None:
    """`shard_<random>` are exactly the practices' databases and login roles, and those that are made ahead: closed."""
    listed = {one["database"] for one in stack.command_json("practices", "list")}
    like = "SELECT {0} FROM {1} WHERE {0} ~ '^(shard|practice)' AND {2}"
    assert set(column(superuser_dsn, like.format("datname", "pg_database", "datallowconn"))) == listed
    made_ahead = "SELECT database FROM tenant.warm_shards"
    central_dsn = with_database(superuser_dsn, stack.central_database())

    def others() -> set[str]:
        """What is neither a practice's nor made ahead, while more may be made just now."""
        known = listed | set(column(central_dsn, made_ahead))
        named = {
            *column(superuser_dsn, like.format("datname", "pg_database", "NOT datistemplate")),
            *column(superuser_dsn, like.format("rolname", "pg_roles", "rolcanlogin")),
        }
        return known ^ named

    eventually_none(others, "strangers", timeout_s=30)
    assert all(name.startswith("shard_") for name in listed)


def test_every_shard_is_stamped_with_its_own_practice(stack: EmbeddedStack, superuser_dsn: str) -> None:
    settings = rows(
        superuser_dsn,
        "SELECT d.datname, s.setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase"
        " WHERE s.setrole = 0 AND NOT d.datistemplate",
    )
    stamped = {name: dict(one.split("=", 1) for one in config) for name, config in settings}
    for listed in stack.command_json("practices", "list"):
        assert stamped[listed["database"]]["gowebbo.practice_id"] == listed["id"]
        assert stamped[listed["database"]]["gowebbo.fleet_id"]


def test_a_shard_with_anothers_stamp_is_never_read(
    new_practice: Callable[..., Practice], stack: EmbeddedStack, superuser_dsn: str
) -> None:
    """The last line: were the directory wrong, the stamp says so. An error, never a row."""
    joined, stranger = new_practice(), new_practice()
    joined.new_patient(name="Behind a wrong stamp")
    listed = {one["id"]: one["database"] for one in stack.command_json("practices", "list")}
    with psql(superuser_dsn) as cursor:
        cursor.execute(f"ALTER DATABASE {listed[joined.id]} SET gowebbo.practice_id = '{stranger.id}'")
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (listed[joined.id],)
        )
    answers = [joined.get(PATIENTS) for _ in range(3)]
    assert all("Behind a wrong stamp" not in answer.text for answer in answers)
    assert {answer.status_code for answer in answers} == {503}
    with psql(superuser_dsn) as cursor:
        cursor.execute(f"ALTER DATABASE {listed[joined.id]} SET gowebbo.practice_id = '{joined.id}'")
    assert [one["name"] for one in joined.patients()] == ["Behind a wrong stamp"]
