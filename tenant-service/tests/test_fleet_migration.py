"""A fleet is migrated: whatever is wrong with one shard, the others get there, and nothing is lost or told wrong."""

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest
from migration_stand import (
    FORMER,
    HEAD,
    UNDO_THE_LAST,
    NoProgress,
    behind,
    fences,
    ledger,
    migrate,
    put_back,
    revision_in,
    row_of,
    states,
    table_locked,
)
from tenant_stand import Fleet, Tenants, execute_at, new_fleet, wait_for

from gowebbo_stack.testing import PostgresServer, running_postgres
from tenant_service import migrating, preparation, shard_migration
from tenant_service.config import PrepareServerSettings
from tenant_service.fleet_migration import FleetMigration
from tenant_service.server_admin import APPLICATION_NAME, Access
from tenant_service.storage.directory import Shard


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_migration, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(
        shard_migration, "_STEP_OPTIONS", shard_migration._STEP_OPTIONS.replace("lock_timeout=2s", "lock_timeout=0.2s")
    )


def sql(fleet: Fleet, shard: Shard, statement: str) -> None:
    """What a superuser does in a shard."""
    execute_at(fleet.postgres.dsn(str(shard.database)), statement)


def changes_of(fleet: Fleet, shard: Shard) -> list[str]:
    """What gateways were told of a practice."""
    rows = fleet.query("SELECT kind FROM tenant.changes WHERE practice_id = %s ORDER BY seq", str(shard.practice_id))
    return [row[0] for row in rows]


def is_served(tenants: Tenants, shard: Shard) -> bool:
    """Whether gateways are told where the shard is; else they are told of its maintenance."""
    answer = tenants.get(shard.practice_id)
    if answer.status_code == 503:
        assert answer.json()["type"] == "/errors/shard-maintenance"
        assert "maintenance" in answer.json()["message"]
        assert int(answer.headers["retry-after"]) > 0
    return answer.status_code == 200


def test_two_hundred_shards_with_one_locked(fleet: Fleet) -> None:
    shards = behind(fleet, 200)
    stuck = shards[77]
    with table_locked(fleet, stuck):
        result = migrate(fleet)
    assert result["head"] == HEAD
    assert Counter(states(result).values()) == {"done": 199, "failed": 1}
    row = row_of(result, stuck)
    assert (row["revision"], row["fingerprint_ok"], row["server"]) == (FORMER, True, "a")
    assert "lock" in row["error"]
    before = ledger(fleet)
    assert Counter(entry[1] for entry in before.values()) == {"done": 199, "failed": 1}
    assert {entry[0] for entry in before.values()} == {HEAD}
    assert all(entry[2] > 0 for entry in before.values())
    assert fences(fleet) == {}  # services work with the revision before the newest

    again = migrate(fleet)
    assert set(states(again).values()) == {"done"}
    after = ledger(fleet)
    assert {name for name in after if after[name] != before[name]} == {stuck.database}

    assert migrate(fleet)["shards"] == again["shards"]
    assert ledger(fleet) == after
    assert fleet.query("SELECT count(*) FROM tenant.shards WHERE revision = %s", HEAD) == [(200,)]


def test_nobody_waits_for_a_shard_whose_table_is_locked_for_reading_too(fleet: Fleet) -> None:
    one, other = behind(fleet, 2)
    with table_locked(fleet, one, "ACCESS EXCLUSIVE"):
        assert states(migrate(fleet)) == {one.database: "failed", other.database: "done"}
    assert states(migrate(fleet)) == {one.database: "done", other.database: "done"}


@pytest.mark.parametrize("is_behind", [False, True])
def test_a_shard_that_is_not_what_its_stamp_says_is_fenced_alone(
    tenants: Tenants, fleet: Fleet, *, is_behind: bool
) -> None:
    bad, *others = behind(fleet, 3) if is_behind else [fleet.shard() for _ in range(3)]
    sql(fleet, bad, "GRANT DELETE ON patients TO shard_rw; DROP INDEX patients_active_idx")
    result = migrate(fleet)
    row = row_of(result, bad)
    assert (row["state"], row["fingerprint_ok"]) == ("drifted", False)
    assert "- index CREATE INDEX patients_active_idx ON public.patients" in row["error"]
    assert "+ grant DELETE, INSERT, SELECT, UPDATE on table public.patients to shard_rw" in row["error"]
    assert revision_in(fleet, bad) == row["revision"] == (FORMER if is_behind else HEAD)  # left as it was
    assert ledger(fleet)[bad.database][1] == "drifted"
    assert fences(fleet) == {bad.database: "drifted"}
    assert changes_of(fleet, bad) == ["shard-fenced"]
    assert not is_served(tenants, bad)
    for other in others:
        assert is_served(tenants, other)
        assert row_of(result, other)["state"] == "done"
        assert changes_of(fleet, other) == []

    migrate(fleet)
    assert changes_of(fleet, bad) == ["shard-fenced"]  # not told again

    sql(fleet, bad, "REVOKE DELETE ON patients FROM shard_rw")
    sql(fleet, bad, "CREATE INDEX patients_active_idx ON patients (id) WHERE is_deleted = 0")
    assert set(states(migrate(fleet)).values()) == {"done"}
    assert fences(fleet) == {}
    assert changes_of(fleet, bad) == ["shard-fenced", "shard-unfenced"]
    assert is_served(tenants, bad)
    assert revision_in(fleet, bad) == HEAD


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE alembic_version",
        "DELETE FROM alembic_version",
        "INSERT INTO alembic_version VALUES ('9999')",
        "ALTER TABLE alembic_version OWNER TO postgres; REVOKE ALL ON alembic_version FROM gowebbo_tenant",
    ],
)
def test_a_shard_without_a_clear_stamp_is_fenced(fleet: Fleet, damage: str) -> None:
    shard = fleet.shard()
    sql(fleet, shard, damage)
    row = row_of(migrate(fleet), shard)
    assert (row["state"], row["fingerprint_ok"]) == ("drifted", False)
    assert fences(fleet) == {shard.database: "drifted"}


def test_a_newer_releases_shard_is_left_alone(fleet: Fleet) -> None:
    """An older replica must not fence what a newer one has made."""
    shard = fleet.shard()
    sql(fleet, shard, "UPDATE alembic_version SET version_num = '9999'; ALTER TABLE patients ADD news text")
    row = row_of(migrate(fleet), shard)
    assert (row["state"], row["revision"], row["error"]) == (
        "failed",
        "9999",
        "This release does not know revision 9999.",
    )
    assert fences(fleet) == {}


def test_what_stays_behind_the_revisions_that_services_accept_is_fenced_until_it_is_there(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shard,) = behind(fleet, 1)
    monkeypatch.setattr(migrating, "accepted_revisions", lambda: (HEAD,))
    with table_locked(fleet, shard):
        assert set(states(migrate(fleet)).values()) == {"failed"}
    assert fences(fleet) == {shard.database: "behind"}
    assert set(states(migrate(fleet)).values()) == {"done"}
    assert fences(fleet) == {}
    assert changes_of(fleet, shard) == ["shard-fenced", "shard-unfenced"]


def only_in(shard: Shard, statement: str) -> str:
    """A migration that does something else in one shard."""
    return f"DO $$ BEGIN IF current_database() = '{shard.database}' THEN {statement}; END IF; END $$;"


def test_a_statement_that_fails_leaves_that_shard_as_it_was(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the ledger nor the operator learns a patient's value from it."""
    one, other = behind(fleet, 2)
    fleet.store_patient(str(one.database))
    script = migrating.shard_script(FORMER, HEAD)
    for statement, told in (
        ("PERFORM 1/0", "SQLSTATE 22012"),
        ("PERFORM mobile::uuid FROM patients", "SQLSTATE 22P02"),
        ("CREATE TABLE patients (id int)", 'relation "patients" already exists (SQLSTATE 42P07)'),
    ):
        failing = script + only_in(one, statement)
        monkeypatch.setattr(migrating, "shard_script", lambda *_, failing=failing: failing)
        row = row_of(migrate(fleet), one)
        assert (row["state"], row["revision"], row["fingerprint_ok"]) == ("failed", FORMER, True)
        assert told in row["error"]
        assert "12345" not in row["error"]
    assert revision_in(fleet, one) == FORMER
    assert revision_in(fleet, other) == HEAD
    assert fences(fleet) == {}


def test_what_would_not_come_out_as_described_is_not_committed(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = behind(fleet, 2)
    script = migrating.shard_script(FORMER, HEAD) + only_in(one, "CREATE TABLE surplus (id int)")
    monkeypatch.setattr(migrating, "shard_script", lambda *_: script)
    row = row_of(migrate(fleet), one)
    assert (row["state"], row["revision"], row["fingerprint_ok"]) == ("failed", FORMER, True)
    assert "+ column public.surplus.id integer" in row["error"]
    assert (revision_in(fleet, one), revision_in(fleet, other)) == (FORMER, HEAD)
    assert fleet.query("SELECT to_regclass('surplus')", database=str(one.database)) == [(None,)]
    assert fences(fleet) == {}  # it is still what it says


def test_the_first_ones_must_all_succeed_before_the_rest_is_touched(fleet: Fleet) -> None:
    shards = behind(fleet, 5)
    already, *late = shards
    assert set(states(migrate(fleet)).values()) == {"done"}
    put_back(fleet, *late)
    with table_locked(fleet, late[1]):
        result = migrate(fleet, canary=2)
    assert result["stopped"]
    assert states(result) == {
        late[0].database: "done",
        late[1].database: "failed",
        **{shard.database: "skipped" for shard in (already, *late[2:])},
    }
    assert [revision_in(fleet, shard) for shard in shards] == [HEAD, HEAD, FORMER, FORMER, FORMER]
    assert row_of(result, late[2])["revision"] == FORMER
    succeeded = migrate(fleet, canary=2)
    assert not succeeded["stopped"]
    assert set(states(succeeded).values()) == {"done"}


def test_a_shard_that_is_known_to_be_bad_does_not_stop_every_migration(fleet: Fleet) -> None:
    bad, *others = behind(fleet, 3)
    sql(fleet, bad, "CREATE TABLE surplus (id int)")
    migrate(fleet)
    put_back(fleet, *others)
    result = migrate(fleet, canary=2)
    assert not result["stopped"]
    assert states(result) == {bad.database: "drifted"} | {shard.database: "done" for shard in others}


def test_more_first_ones_than_shards_are_all_of_them(fleet: Fleet) -> None:
    behind(fleet, 2)
    assert Counter(states(migrate(fleet, canary=50)).values()) == {"done": 2}


def test_a_fleet_without_shards_is_migrated(fleet: Fleet) -> None:
    assert migrate(fleet, canary=1) == {"head": HEAD, "stopped": False, "shards": []}


def test_new_shards_get_their_row_once(fleet: Fleet) -> None:
    shard = fleet.shard()
    row = row_of(migrate(fleet), shard)
    assert (row["state"], row["revision"], row["fingerprint_ok"], row["error"]) == ("done", HEAD, True, None)
    noted = ledger(fleet)
    assert noted[shard.database][:2] == (HEAD, "done")
    migrate(fleet)
    assert ledger(fleet) == noted


def test_progress_is_told_for_each_shard(fleet: Fleet) -> None:
    behind(fleet, 3)
    progress = NoProgress()
    FleetMigration(fleet.app.state.engine, fleet.servers, workers=1).run({"canary": 1}, progress)
    assert progress.noted == [(1, 3), (2, 3), (3, 3)]


def test_a_shard_is_migrated_by_one_at_a_time(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs at once, as after a lost connection to the central database: each step is taken once."""
    shards = behind(fleet, 6)
    original, changed = shard_migration.migrate, []

    def noted(access: Access, database: str) -> shard_migration.Outcome:
        outcome = original(access, database)
        changed.extend([database] * outcome.changed)
        return outcome

    monkeypatch.setattr(shard_migration, "migrate", noted)
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda _: migrate(fleet), range(2)))
    assert [Counter(states(result).values()) for result in results] == [{"done": 6}] * 2
    assert sorted(changed) == sorted(str(shard.database) for shard in shards)


def test_a_shard_that_is_dropped_or_claimed_by_another_deed_meanwhile_is_left_to_it(fleet: Fleet) -> None:
    shards = behind(fleet, 3)
    admin = fleet.servers.admin("a")
    with admin.locked(str(shards[0].database)), ThreadPoolExecutor(1) as threads:
        running = threads.submit(migrate, fleet)
        wait_for(
            lambda: fleet.query(
                "SELECT 1 FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'",
                APPLICATION_NAME,
            )
        )
        execute_at(
            fleet.postgres.dsn(fleet.database),
            "UPDATE tenant.shards SET state = 'undone' WHERE practice_id = %s",
            str(shards[0].practice_id),
        )
    result = running.result()
    assert states(result) == {shard.database: "done" for shard in shards[1:]}


def test_a_shard_whose_database_is_gone_fails_alone(fleet: Fleet) -> None:
    gone, other = behind(fleet, 2)
    execute_at(fleet.postgres.dsn(), f"DROP DATABASE {gone.database}")
    row = row_of(migrate(fleet), gone)
    assert (row["state"], row["revision"], row["fingerprint_ok"]) == ("failed", FORMER, None)
    assert "does not exist" in row["error"]
    assert revision_in(fleet, other) == HEAD


def test_a_server_that_stops_in_mid_run_fails_its_own_shards_only(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_postgres(tmp_path) as second:
        values = {"db_host": second.host, "db_port": second.port, "db_superuser_pass": second.password}
        preparation.prepare_server(PrepareServerSettings(_env_file=None, tenant_db_pass=postgres.password, **values))
        fleet = new_fleet(postgres, shard_servers=f"a={postgres.host}:{postgres.port},b={second.host}:{second.port}")
        assert fleet.servers.refresh()
        shards = [fleet.shard() for _ in range(12)]
        on_a, on_b = ([shard for shard in shards if shard.server == key] for key in "ab")
        assert len(on_a) == len(on_b) == 6
        put_back(fleet, *on_a)
        for shard in on_b:
            execute_at(second.dsn(str(shard.database)), UNDO_THE_LAST)
        original = shard_migration.migrate

        def migrate_and_stop(access: Access, database: str) -> shard_migration.Outcome:
            outcome = original(access, database)
            if access.port == second.port:
                os.kill(second.pid, signal.SIGINT)
                wait_for(lambda: not is_up(second))
            return outcome

        monkeypatch.setattr(shard_migration, "migrate", migrate_and_stop)
        began = time.monotonic()
        result = migrate(fleet)
        assert time.monotonic() - began < 60
    assert {states(result)[str(shard.database)] for shard in on_a} == {"done"}
    assert Counter(states(result)[str(shard.database)] for shard in on_b)["failed"] >= 4
    failed = [row for row in result["shards"] if row["state"] == "failed"]
    assert {row["server"] for row in failed} == {"b"}
    assert all(row["error"] for row in failed)
    assert fences(fleet) == {}
    assert Counter(entry[1] for entry in ledger(fleet).values()) == Counter(states(result).values())
    fleet.drop_everything()


def is_up(server: PostgresServer) -> bool:
    try:
        psycopg2.connect(server.dsn()).close()
    except psycopg2.OperationalError:
        return False
    return True
