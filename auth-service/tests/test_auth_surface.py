"""The whole surface: routes are closed to the unsigned, tables equal their migrations, settings are described."""

import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from auth_support import ANYBODY, GATEWAY_SECRET, JWT_SECRET, Central, environment_of
from fastapi.routing import APIRoute

from auth_service import handlers
from auth_service.config import DatabaseSettings, Settings
from auth_service.database import Database
from auth_service.main import create_app
from auth_service.migrations import migrate, missing_migrations
from auth_service.schema import SCHEMA, metadata

OPEN = {"/livez", "/readyz", "/metrics", "/.well-known/jwks.json"}
CATALOG = {
    "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'auth'::regnamespace ORDER BY 1, 2",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'auth' ORDER BY 1, 2",
    "columns": "SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity,"
    " character_maximum_length FROM information_schema.columns WHERE table_schema = 'auth' ORDER BY 1, 2",
}


def routes(auth) -> list[tuple[str, str]]:
    listed = [*auth.app.routes, *(route for router in handlers.ROUTERS for route in router.routes)]
    found = [route for route in listed if isinstance(route, APIRoute)]
    return [(method, route.path) for route in found for method in route.methods]


def test_every_route_is_open_on_purpose_or_refuses_the_unsigned(auth):
    listed = routes(auth)
    assert len(listed) >= 15
    for method, path in [*listed, ("GET", "/nowhere"), ("DELETE", "/internal/changes")]:
        status = auth.client.http.request(method, path).status_code
        assert (status == 401) != (path in OPEN), (method, path, status)


def test_internal_routes_do_not_exist_for_others(auth):
    internal = [(method, path) for method, path in routes(auth) if path.startswith("/internal")]
    assert len(internal) == 3
    for method, path in internal:
        assert auth.client.call(method, path, {} if method == "POST" else None, caller=ANYBODY).status_code == 404
    document = auth.client.call("GET", "/openapi.json").json()
    assert not [path for path in document["paths"] if path.startswith("/internal")]


def test_every_documented_route_tells_what_it_does_and_how_it_fails(auth):
    document = auth.client.call("GET", "/openapi.json").json()
    operations = [(path, method, one) for path, methods in document["paths"].items() for method, one in methods.items()]
    for path, method, operation in operations:
        assert operation["summary"], path
        assert operation["description"], path
        assert any(status.startswith("4") for status in operation["responses"]), (path, method)


def test_unknown_paths_and_methods(client):
    assert client.call("GET", "/api/v1/nowhere").status_code == 404
    refused = client.call("GET", "/api/v1/practices/signup")
    assert refused.status_code == 405
    assert refused.headers["Allow"] == "POST"


def test_the_key_set_may_be_cached(client):
    answer = client.http.get("/.well-known/jwks.json")
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    (key,) = answer.json()["keys"]
    assert set(key) == {"kty", "crv", "use", "alg", "kid", "x"}, "public parts only"


def test_readyz_names_what_is_missing(auth, tenant, central):
    assert auth.client.http.get("/readyz").status_code == 200
    tenant.mode = "error"
    answer = auth.client.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["missing"] == {"tenant-service": "not ready"}
    tenant.mode = "ok"
    tenant.kill()
    assert auth.client.http.get("/readyz").json()["missing"] == {"tenant-service": "unreachable"}
    tenant.start()
    central.rows("DELETE FROM auth.alembic_version")
    assert auth.client.http.get("/readyz").json()["missing"] == {"central database": "not migrated"}
    central.rows("INSERT INTO auth.alembic_version VALUES ('9999')")
    assert auth.client.http.get("/readyz").status_code == 200, "an update migrates before the old replicas end"


def test_tables_equal_their_migrations(database):
    with database.engine.connect() as connection:
        options = {
            "include_schemas": True,
            "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
            "version_table_schema": SCHEMA,
            "compare_server_default": True,
        }
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []


def test_the_catalog_of_migrated_and_declared_tables_is_the_same(postgres, central, make_database):
    """Alembic doesn't compare checks, partial indexes and expressions; the catalog does."""
    settings = make_database()
    declared = Database(DatabaseSettings(_env_file=None, **settings))
    metadata.create_all(declared.engine)
    declared.close()
    other = Central(postgres.dsn(settings["db_name"]))
    for name, query in CATALOG.items():
        migrated = [row for row in central.rows(query) if "alembic_version" not in row[0]]
        assert migrated == other.rows(query), name
    other.close()


def test_migrating_is_idempotent_and_may_run_in_parallel(make_database, tmp_path):
    settings = make_database()
    database = Database(DatabaseSettings(_env_file=None, **settings))
    assert missing_migrations(database.engine) == "not migrated"
    environment = environment_of(DatabaseSettings(_env_file=None, **settings))
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "auth_service.cli", "migrate"], env=environment, cwd=tmp_path, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    for process in processes:
        process.stdout.close()
    assert missing_migrations(database.engine) is None
    migrate(database.engine)
    database.close()


def test_migrating_without_a_database_says_what_to_do(make_database, tmp_path):
    environment = environment_of(DatabaseSettings(_env_file=None, **make_database())) | {"DB_PORT": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "auth_service.cli", "migrate"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Is PostgreSQL reachable at 127.0.0.1:1" in done.stderr
    assert environment["DB_PASS"] not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_before_the_migration_requests_are_503_and_the_service_recovers(start_auth, make_database):
    settings = make_database()
    client = start_auth(**settings).client
    assert client.sign_up().status_code == 503
    assert client.http.get("/readyz").json()["missing"] == {"central database": "not migrated"}
    database = Database(DatabaseSettings(_env_file=None, **settings))
    migrate(database.engine)
    database.close()
    assert client.http.get("/readyz").status_code == 200
    assert client.sign_up().status_code == 201


def test_every_setting_is_described():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_faulty_settings_are_refused(auth_settings):
    faults = {
        "bcrypt_cost": 9,
        "jwt_secret": f"{JWT_SECRET},short",
        "token_expire_in": "2d",
        "refresh_expire_in": "never",
        "tenant_service_url": "tenant-service",
        "db_port": 0,
    }
    for name, value in faults.items():
        with pytest.raises(ValueError, match=name):
            auth_settings(**{name: value})


def test_token_life_is_written_as_the_original_did(auth_settings):
    for written, seconds in {"1hr": 3600, "30m": 1800, "900": 900}.items():
        assert auth_settings(token_expire_in=written).token_expire_in == seconds


def test_making_the_application_connects_to_nothing(tmp_path):
    """Every address is one where nobody answers."""
    create_app(
        Settings(
            _env_file=None,
            gateway_secret=GATEWAY_SECRET,
            jwt_secret=JWT_SECRET,
            db_host="192.0.2.1",
            db_pass="x",
            tenant_service_url=f"unix:{tmp_path}/nobody",
            redis_host="192.0.2.1",
        )
    )
