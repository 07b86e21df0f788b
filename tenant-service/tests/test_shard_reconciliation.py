"""What the reconciler does with databases the directory doesn't know: it keeps them, closed; or touches nothing."""

import secrets
import uuid
from collections.abc import Iterator

import psycopg2
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from tenant_stand import Fleet, execute_at, new_fleet, serving, wait_for

from gowebbo_stack.testing import PostgresServer
from shared.ids import new_id
from tenant_service import shard_database
from tenant_service.central import reconciliation_locked
from tenant_service.storage.directory import Shard


@pytest.fixture
def foreign(postgres: PostgresServer) -> Iterator[Fleet]:
    """Another directory whose shards are on the same server."""
    made = new_fleet(postgres)
    made.servers.refresh()
    yield made
    made.drop_everything()


def used_shards(fleet: Fleet, count: int) -> list[Shard]:
    shards = [fleet.shard() for _ in range(count)]
    for shard in shards:
        fleet.store_patient(shard.database)
    return shards


def forget(fleet: Fleet, *shards: Shard) -> None:
    """What a central database restored to an older state has forgotten."""
    for shard in shards:
        execute_at(
            fleet.postgres.dsn(fleet.database),
            "DELETE FROM tenant.shards WHERE practice_id = %s",
            str(shard.practice_id),
        )


def patients_in(fleet: Fleet, database: str) -> int:
    execute_at(fleet.postgres.dsn(), f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
    ((count,),) = fleet.query("SELECT count(*) FROM patients", database=database)
    return count


def test_a_healthy_fleet_is_left_alone(fleet: Fleet) -> None:
    shards = used_shards(fleet, 3)
    with capture_logs() as logs:
        fleet.sweep()
    assert fleet.databases() == {shard.database: True for shard in shards}
    assert [log for log in logs if log["log_level"] != "info"] == []


def test_a_directory_restored_to_an_older_state_costs_no_shard(fleet: Fleet) -> None:
    kept, *forgotten = used_shards(fleet, 4)
    forget(fleet, *forgotten)
    with capture_logs() as logs:
        fleet.sweep()
        fleet.sweep()
    assert fleet.databases() == {kept.database: True, **{shard.database: False for shard in forgotten}}
    assert [log["event"] for log in logs if log["log_level"] == "error"] == ["orphan_quarantined"] * 3
    for shard in forgotten:
        assert fleet.state_of(shard.practice_id) == "quarantined"
        with pytest.raises(psycopg2.OperationalError):
            fleet.log_in(shard.database, shard.database)
        assert patients_in(fleet, shard.database) == 1


def test_a_quarantined_orphan_is_reported_and_never_served_made_or_dropped(fleet: Fleet) -> None:
    (shard,) = used_shards(fleet, 1)
    forget(fleet, shard)
    fleet.sweep()
    with serving(fleet) as tenants:
        wait_for(tenants.is_ready)
        assert tenants.get(shard.practice_id).json()["type"] == "/errors/shard-quarantined"
        assert tenants.put(shard.practice_id).status_code == 503
        assert tenants.delete(shard.practice_id).json()["state"] == "quarantined"
    assert fleet.databases() == {shard.database: False}


def test_sessions_in_an_orphan_are_ended(fleet: Fleet) -> None:
    shard = fleet.shard()
    connection = fleet.log_in(shard.database, shard.database)
    forget(fleet, shard)
    fleet.sweep()
    with pytest.raises(psycopg2.OperationalError):
        connection.cursor().execute("SELECT 1")


def test_many_orphans_at_once_stop_the_sweep(fleet: Fleet) -> None:
    shards = used_shards(fleet, 6)
    forget(fleet, *shards)
    with capture_logs() as logs:
        fleet.sweep()
    assert fleet.databases() == {shard.database: True for shard in shards}
    assert fleet.query("SELECT count(*) FROM tenant.shards") == [(0,)]
    assert [log["event"] for log in logs if log["log_level"] == "error"] == ["sweep_stopped_too_many_orphans"]


def test_one_per_cent_of_a_large_fleet_is_not_many(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = used_shards(fleet, 6)
    forget(fleet, *shards)
    monkeypatch.setattr("tenant_service.reconciliation.MOST_ORPHANS_SHARE", 1.0)
    fleet.sweep()
    assert set(fleet.databases().values()) == {False}


def test_another_fleets_shards_are_not_touched(fleet: Fleet, foreign: Fleet) -> None:
    strangers = used_shards(foreign, 2)
    forget(foreign, *strangers)
    fleet.shard()
    fleet.sweep()
    assert foreign.databases() == {shard.database: True for shard in strangers}


def test_an_empty_central_database_touches_nothing(fleet: Fleet, foreign: Fleet) -> None:
    """A wrong DB_NAME: the other directory has another fleet's id."""
    shards = used_shards(fleet, 3)
    foreign.sweep()
    assert fleet.databases() == {shard.database: True for shard in shards}


def test_databases_without_a_stamp_are_not_touched(fleet: Fleet) -> None:
    name = f"shard_{secrets.token_hex(10)}"
    execute_at(fleet.postgres.dsn(), f"CREATE DATABASE {name}")
    try:
        fleet.sweep()
        assert fleet.query("SELECT datallowconn FROM pg_database WHERE datname = %s", name) == [(True,)]
    finally:
        execute_at(fleet.postgres.dsn(), f"DROP DATABASE {name}")


@pytest.mark.parametrize("state", ["creating", "ready"])
def test_a_practice_restored_to_its_sign_up_keeps_its_patients(fleet: Fleet, state: str) -> None:
    """The older state knows the sign-up as unfinished, auth-service undoes it: the patients are newer than that."""
    (shard,) = used_shards(fleet, 1)
    execute_at(fleet.postgres.dsn(fleet.database), f"UPDATE tenant.shards SET state = '{state}'")
    assert fleet.provisioning.release(shard.practice_id).state == "quarantined"
    fleet.sweep()
    assert patients_in(fleet, shard.database) == 1


def test_what_an_undone_sign_up_left_and_the_directory_forgot_is_dropped(fleet: Fleet) -> None:
    shard = fleet.shard()
    execute_at(
        fleet.postgres.dsn(fleet.database),
        "UPDATE tenant.shards SET state = 'undone', server = NULL, database = NULL",
    )
    fleet.sweep()
    assert fleet.databases() == {}
    assert fleet.state_of(shard.practice_id) == "undone"


def test_but_not_when_it_holds_patients(fleet: Fleet) -> None:
    (shard,) = used_shards(fleet, 1)
    execute_at(
        fleet.postgres.dsn(fleet.database),
        "UPDATE tenant.shards SET state = 'undone', server = NULL, database = NULL",
    )
    fleet.sweep()
    fleet.sweep()
    assert patients_in(fleet, shard.database) == 1


def test_one_server_known_by_two_keys_makes_no_orphans(postgres: PostgresServer) -> None:
    where = f"{postgres.host}:{postgres.port}"
    twice = new_fleet(postgres, shard_servers=f"a={where},b={where}")
    try:
        twice.servers.refresh()
        shards = used_shards(twice, 3)
        twice.sweep()
        assert twice.databases() == {shard.database: True for shard in shards}
    finally:
        twice.drop_everything()


def test_a_ready_shard_without_a_database_is_reported_once(fleet: Fleet) -> None:
    shard = fleet.shard()
    with fleet.servers.admin("a").session() as session:
        shard_database.drop(session, shard.database)
    metrics = CollectorRegistry()
    reconciler = fleet.reconciler(metrics)
    with capture_logs() as logs:
        reconciler.sweep()
        reconciler.sweep()
    assert [log["event"] for log in logs if log["log_level"] == "error"] == ["ready_shard_has_no_database"]
    assert metrics.get_sample_value("gowebbo_shards_lost") == 1
    assert metrics.get_sample_value("gowebbo_shards", {"state": "ready"}) == 1


def test_only_one_process_reconciles(fleet: Fleet) -> None:
    reconciler = fleet.reconciler()
    with reconciliation_locked(fleet.app.state.engine) as mine:
        assert mine
        assert reconciler.sweep() is False
    assert reconciler.sweep() is True


def test_the_running_service_reconciles_by_itself(postgres: PostgresServer) -> None:
    fleet = new_fleet(postgres, reconcile_every_s=0.1)
    try:
        with serving(fleet) as tenants:
            wait_for(tenants.is_ready)
            orphan, other = new_id(), new_id()
            database = tenants.put(orphan).json()["database"]
            tenants.put(other)
            forget(fleet, Shard(uuid.UUID(str(orphan)), "a", database, None))
            wait_for(lambda: fleet.databases()[database] is False)
            wait_for(lambda: 'gowebbo_shards{state="quarantined"} 1.0' in tenants.call("GET", "/metrics").text)
    finally:
        fleet.drop_everything()


def made_ahead(fleet: Fleet, count: int) -> list[str]:
    """Shards that were made ahead and that the directory has forgotten."""
    replica = Fleet(fleet.postgres, fleet.database, fleet.settings.model_copy(update={"shard_warm_pool": count}))
    replica.servers.refresh()
    assert replica.pool.refill()
    databases = fleet.warm()
    fleet.change("DELETE FROM tenant.warm_shards")
    return databases


def test_shards_made_ahead_have_an_owner(fleet: Fleet) -> None:
    databases = made_ahead(fleet, 2)
    for state, database in zip(("ready", "making"), databases, strict=True):
        fleet.change("INSERT INTO tenant.warm_shards VALUES (%s, 'a', %s, 'newer')", database, state)
    with capture_logs() as logs:
        fleet.sweep()
    assert fleet.databases() == dict.fromkeys(databases, False)
    assert logs == []


def test_what_was_made_ahead_and_never_claimed_is_dropped_when_nothing_tells_of_it(fleet: Fleet) -> None:
    kept, *dropped = made_ahead(fleet, 4)
    fleet.change("INSERT INTO tenant.warm_shards VALUES (%s, 'a', 'ready', 'newer')", kept)
    metrics = CollectorRegistry()
    with capture_logs() as logs:
        fleet.reconciler(metrics).sweep()
    assert fleet.databases() == {kept: False}
    assert fleet.query("SELECT 1 FROM pg_roles WHERE rolname = ANY (%s)", dropped) == []
    (told,) = [log for log in logs if log["event"] == "sweep_settled"]
    assert told["deeds"] == {"unclaimed_shard_dropped": 3}
    deeds = metrics.get_sample_value("gowebbo_reconciler_deeds_total", {"deed": "unclaimed_shard_dropped"})
    assert deeds == 3


def test_but_not_when_so_many_are_missing_from_the_directory(fleet: Fleet) -> None:
    """And it does not keep the few practices that are missing from being kept safe."""
    databases = made_ahead(fleet, 6)
    (shard,) = used_shards(fleet, 1)
    forget(fleet, shard)
    with capture_logs() as logs:
        fleet.sweep()
    assert fleet.databases() == dict.fromkeys([*databases, shard.database], False)
    errors = [log["event"] for log in logs if log["log_level"] == "error"]
    assert errors == ["orphan_quarantined", "sweep_stopped_too_many_unclaimed"]


@pytest.mark.parametrize("state", ["creating", "quarantined", "ready"])
def test_and_not_when_any_row_tells_of_it(fleet: Fleet, state: str) -> None:
    (database,) = made_ahead(fleet, 1)
    fleet.change(
        "INSERT INTO tenant.shards (practice_id, server, database, state) VALUES (%s, 'a', %s, %s)",
        str(new_id()),
        database,
        state,
    )
    fleet.sweep()
    assert fleet.databases() == {database: False}


def test_a_practices_stamp_keeps_a_closed_database_from_being_dropped(fleet: Fleet) -> None:
    (database,) = made_ahead(fleet, 1)
    execute_at(fleet.postgres.dsn(), f"ALTER DATABASE {database} SET gowebbo.practice_id = 'unreadable'")
    fleet.sweep()
    assert fleet.databases() == {database: False}


def test_an_open_database_without_a_practices_stamp_is_kept_for_good(fleet: Fleet) -> None:
    """Closed and without a stamp it would look like one that nobody ever claimed."""
    (shard,) = used_shards(fleet, 1)
    execute_at(fleet.postgres.dsn(), f"ALTER DATABASE {shard.database} RESET gowebbo.practice_id")
    forget(fleet, shard)
    fleet.sweep()
    fleet.sweep()
    assert fleet.databases() == {shard.database: False}
    assert patients_in(fleet, shard.database) == 1


def test_a_row_of_the_pool_whose_database_is_gone_is_forgotten(fleet: Fleet) -> None:
    fleet.change("INSERT INTO tenant.warm_shards VALUES ('shard_0123456789', 'a', 'ready', 'newer')")
    fleet.sweep()
    assert fleet.warm() == []
