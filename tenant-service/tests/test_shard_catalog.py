"""The catalog as it is found: the same on every version of PostgreSQL, and any difference is told."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import psycopg2.extensions
import pytest
from tenant_stand import Fleet, execute_at, new_fleet, query_at

from gowebbo_stack.testing import PostgresServer
from tenant_service import catalog, migrating, templates
from tenant_service.preparation import TENANT_ROLE

REVISIONS = migrating.shard_revisions()


@contextlib.contextmanager
def migrated(postgres: PostgresServer, *steps: str) -> Iterator[psycopg2.extensions.connection]:
    """A database of the admin role, brought to each of the revisions in turn; the superuser's connection to it."""
    name = f"try_{secrets.token_hex(6)}"
    execute_at(postgres.dsn(), f"CREATE DATABASE {name} TEMPLATE template0 OWNER {TENANT_ROLE}")
    try:
        with contextlib.closing(psycopg2.connect(postgres.dsn(name))) as connection:
            with connection.cursor() as cursor:
                cursor.execute(f"SET SESSION AUTHORIZATION {TENANT_ROLE}")
                for start, end in zip((None, *steps), steps, strict=False):
                    cursor.execute(migrating.shard_script(start, end))
                cursor.execute("RESET SESSION AUTHORIZATION")
            connection.commit()
            yield connection
    finally:
        execute_at(postgres.dsn(), f"DROP DATABASE {name} WITH (FORCE)")


def assert_as_described(postgres: PostgresServer) -> None:
    for number, revision in enumerate(REVISIONS):
        for steps in ((revision,), REVISIONS[: number + 1]):  # at once, and step by step
            with migrated(postgres, *steps) as connection:
                found = catalog.read(connection)
            assert catalog.differences(found, catalog.expected(revision)) == []
            assert found == catalog.expected(revision)  # the order, too
            assert catalog.fingerprint(found) == catalog.fingerprint(catalog.expected(revision))


@pytest.mark.usefixtures("fleet")
def test_migrations_lead_to_the_catalog_beside_each(postgres: PostgresServer) -> None:
    """For a new migration: copy the former's catalog, and change what this test tells."""
    assert_as_described(postgres)


def test_they_do_on_the_oldest_postgresql_too(postgres15: PostgresServer) -> None:
    fleet = new_fleet(postgres15)
    assert fleet.servers.refresh()
    assert_as_described(postgres15)
    fleet.drop_everything()


def test_each_revision_has_its_catalog_and_none_too_many() -> None:
    described = {path.stem for path in Path(migrating.__file__).parent.glob("migrations/shard/*.catalog")}
    assert described == set(REVISIONS)


def test_new_shards_are_at_the_head_and_as_described(fleet: Fleet) -> None:
    database = str(fleet.shard().database)
    assert fleet.query("SELECT version_num FROM alembic_version", database=database) == [(REVISIONS[-1],)]
    with contextlib.closing(psycopg2.connect(fleet.postgres.dsn(database))) as connection:
        assert catalog.read(connection) == catalog.expected(REVISIONS[-1])


def test_a_template_that_is_not_as_described_is_never_used(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    execute_at(fleet.postgres.dsn(), f"ALTER DATABASE {templates.template_name()} IS_TEMPLATE false")
    execute_at(fleet.postgres.dsn(), f"DROP DATABASE {templates.template_name()}")
    wrong = (*catalog.expected(REVISIONS[-1]), "grant DELETE on table public.patients to shard_rw")
    with monkeypatch.context() as patch:
        patch.setattr(catalog, "expected", lambda _: wrong)
        assert not fleet.servers.refresh()
        assert fleet.servers.usable == set()
        assert "template" in fleet.servers.missing()["shard server a"]
        query = "SELECT datistemplate FROM pg_database WHERE datname = %s"
        assert query_at(fleet.postgres.dsn(), query, templates.template_name()) == [(False,)]
    assert fleet.servers.refresh()


DRIFTS = [
    ("ALTER TABLE patients ADD note text", "+ column public.patients.note text"),
    ("ALTER TABLE patients ALTER age DROP NOT NULL", "+ column public.patients.age integer"),
    ("ALTER TABLE patients ALTER age TYPE bigint", "+ column public.patients.age bigint not null"),
    ("ALTER TABLE patients ALTER version SET DEFAULT 2", "+ column public.patients.version integer not null default 2"),
    ("DROP INDEX patients_active_idx", "- index CREATE INDEX patients_active_idx ON public.patients USING btree (id)"),
    ("ALTER TABLE patients DROP CONSTRAINT patients_is_deleted_check", "- constraint patients_is_deleted_check"),
    ("ALTER TABLE patients DROP CONSTRAINT patients_pkey", "- constraint patients_pkey"),
    ("ALTER TABLE patients RESET (fillfactor)", "- table public.patients with (fillfactor=90)"),
    ("ALTER TABLE patients SET UNLOGGED", "+ table public.patients unlogged with (fillfactor=90)"),
    ("ALTER TABLE patients OWNER TO postgres", "+ table public.patients of postgres"),
    ("ALTER TABLE patients ENABLE ROW LEVEL SECURITY", "+ table public.patients with (fillfactor=90) row level"),
    (
        "GRANT DELETE ON patients TO shard_rw",
        "+ grant DELETE, INSERT, SELECT, UPDATE on table public.patients to shard",
    ),
    ("GRANT SELECT ON patients TO PUBLIC", "+ grant SELECT on table public.patients to PUBLIC"),
    ("GRANT UPDATE (name) ON patients TO PUBLIC", "+ grant UPDATE on column public.patients.name to PUBLIC"),
    ("REVOKE UPDATE ON patients FROM shard_rw", "- grant INSERT, SELECT, UPDATE on table public.patients to shard_rw"),
    ("GRANT CREATE ON SCHEMA public TO PUBLIC", "+ grant CREATE, USAGE on schema public to PUBLIC"),
    ("CREATE SCHEMA other", "+ schema other of postgres"),
    ("CREATE SEQUENCE s", "+ sequence public.s as bigint start 1"),
    ("CREATE VIEW v AS SELECT name FROM patients", "+ rule CREATE RULE"),
    ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "+ function public.f() CREATE OR REPLACE FUNCTION"),
    ("CREATE TYPE mood AS ENUM ('a', 'b')", "+ type public.mood is enum ('a', 'b')"),
    ("CREATE DOMAIN d AS int CHECK (VALUE > 1)", "+ constraint d_check on public.d CHECK ((VALUE > 1))"),
    ("CREATE POLICY p ON patients USING (age > 1)", "+ policy p on public.patients permissive for * to PUBLIC using"),
    (
        "CREATE TRIGGER t BEFORE UPDATE ON patients EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "+ trigger CREATE TRIGGER t BEFORE UPDATE ON public.patients",
    ),
    ("CREATE RULE r AS ON DELETE TO patients DO INSTEAD NOTHING", "+ rule CREATE RULE r"),
    ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC", "+ default rights r of postgres"),
    ("CREATE PUBLICATION everything FOR ALL TABLES", "+ publication everything"),
    ("CREATE LANGUAGE another HANDLER plpgsql_call_handler", "+ language another of postgres"),
]


def test_every_kind_of_drift_is_told(fleet: Fleet) -> None:
    untold = []
    with migrated(fleet.postgres, REVISIONS[-1]) as connection, connection.cursor() as cursor:
        for statement, wanted in DRIFTS:
            cursor.execute(statement)
            told = catalog.differences(catalog.read(connection), catalog.expected(REVISIONS[-1]))
            connection.rollback()
            if not any(line.startswith(wanted) for line in told):
                untold.append((statement, told))
        assert catalog.read(connection) == catalog.expected(REVISIONS[-1])
    assert untold == []


def test_a_long_difference_is_told_in_part() -> None:
    text = catalog.told(f"+ column {number}" for number in range(50))
    assert text.splitlines()[-1] == "and 30 more"
    assert len(text.splitlines()) == 21
