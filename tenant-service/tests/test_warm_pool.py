"""Shards made ahead: how many, whose they become, and when they are made anew."""

import asyncio
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
from structlog.testing import capture_logs
from tenant_stand import Fleet, execute_at, new_fleet, serving, wait_for

from gowebbo_stack.testing import PostgresServer
from shared.ids import new_id
from tenant_service import catalog, migrating, shard_database, slots, templates, warm_pool
from tenant_service.server_admin import AdminSession

SIZE = 3


@pytest.fixture
def fleet(postgres: PostgresServer) -> Iterator[Fleet]:
    """A fleet whose servers are to have three shards ready; nothing refills by itself."""
    made = new_fleet(postgres, shard_warm_pool=SIZE)
    assert made.servers.refresh()
    yield made
    made.drop_everything()


@pytest.fixture
def newer_head(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """What a release with a further migration of the shards does to this process."""
    head = migrating.head(migrating.SHARD)
    newer = f"{head}_newer"
    known, script, described = migrating.shard_revisions(), migrating.shard_script, catalog.expected(head)

    def release() -> str:
        monkeypatch.setattr(migrating, "head", lambda history: newer if history is migrating.SHARD else head)
        monkeypatch.setattr(migrating, "shard_revisions", lambda: (*known, newer))
        monkeypatch.setattr(migrating, "shard_script", lambda start, _: script(start, head))
        monkeypatch.setattr(catalog, "expected", lambda _: described)
        assert fleet.servers.refresh()
        return newer

    yield release
    execute_at(fleet.postgres.dsn(), f"ALTER DATABASE gowebbo_template_{newer} IS_TEMPLATE false")
    execute_at(fleet.postgres.dsn(), f"DROP DATABASE gowebbo_template_{newer}")


def test_what_is_made_ahead_is_closed_furnished_and_nobodys(fleet: Fleet) -> None:
    assert fleet.pool.refill()
    assert fleet.databases() == dict.fromkeys(fleet.warm(), False)
    assert len(fleet.warm()) == SIZE
    assert [fleet.stamp_of(database) for database in fleet.warm()] == [None] * SIZE


def test_a_session_that_has_copied_databases_is_not_kept(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process has the server's shared buffers in its memory."""
    cloning, clone = set[int](), shard_database.clone

    def watched(session: AdminSession, database: str, **options: str) -> None:
        ((pid,),) = session.rows("SELECT pg_backend_pid()")
        cloning.add(pid)
        clone(session, database, **options)

    monkeypatch.setattr(shard_database, "clone", watched)
    assert fleet.pool.refill()
    assert len(cloning) == 1  # one for all of a refill's shards
    alive = "SELECT pid FROM pg_stat_activity WHERE pid = ANY (%s)"
    wait_for(lambda: fleet.query(alive, [*cloning]) == [])


def test_the_role_of_a_shard_made_ahead_reaches_nothing(fleet: Fleet) -> None:
    other = fleet.shard().database
    fleet.pool.refill()
    role = fleet.warm()[0]
    for database in (role, fleet.warm()[1], other, fleet.database, "postgres", "template1", templates.template_name()):
        with pytest.raises(psycopg2.OperationalError):
            fleet.log_in(role, database)


def test_a_sign_up_gets_one_and_makes_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.pool.refill()
    first, *others = fleet.warm()
    monkeypatch.setattr(shard_database, "clone", None)  # calling it would fail
    practice_id = new_id()
    shard, made = fleet.provisioning.ensure(practice_id)
    assert (shard.database, made, fleet.state_of(practice_id)) == (first, True, "ready")
    assert fleet.warm() == others
    assert fleet.databases() == {first: True, **dict.fromkeys(others, False)}
    assert fleet.stamp_of(first) == str(practice_id)
    fleet.store_patient(first)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        fleet.log_in(first, first).cursor().execute("DELETE FROM patients")
    for database in (others[0], fleet.database, "postgres", "template1"):
        with pytest.raises(psycopg2.OperationalError):
            fleet.log_in(first, database)


def test_the_next_sign_up_does_without_when_none_is_left(fleet: Fleet) -> None:
    fleet.pool.refill()
    shards = [fleet.shard() for _ in range(SIZE + 2)]
    assert fleet.warm() == []
    for shard in shards:
        fleet.store_patient(shard.database)
    assert fleet.databases() == {shard.database: True for shard in shards}


def test_a_shard_made_ahead_whose_database_is_gone_is_made_for_the_sign_up(fleet: Fleet) -> None:
    fleet.pool.refill()
    gone = fleet.warm()[0]
    with fleet.servers.admin("a").session() as session:
        shard_database.drop(session, gone)
    assert fleet.shard().database == gone
    fleet.store_patient(gone)


def test_only_ready_shards_of_the_newest_revision_on_the_chosen_server_are_handed_out(fleet: Fleet) -> None:
    fleet.pool.refill()
    fleet.change(
        "INSERT INTO tenant.servers (key, host, port, sslmode, capacity) SELECT 'b', host, port, sslmode, 0"
        " FROM tenant.servers"
    )
    one, two, three = fleet.warm()
    fleet.change("UPDATE tenant.warm_shards SET state = 'making' WHERE database = %s", one)
    fleet.change("UPDATE tenant.warm_shards SET revision = 'another' WHERE database = %s", two)
    fleet.change("UPDATE tenant.warm_shards SET server = 'b' WHERE database = %s", three)
    assert fleet.shard().database not in {one, two, three}
    fleet.change("UPDATE tenant.warm_shards SET state = 'dropping' WHERE database = %s", one)
    assert fleet.shard().database not in {one, two, three}


def test_calling_again_for_the_same_practice_takes_no_further_shard(fleet: Fleet) -> None:
    fleet.pool.refill()
    practice_id = new_id()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: fleet.provisioning.ensure(practice_id), range(4)))
    assert len({shard for shard, _ in found}) == 1
    assert [made for _, made in found].count(True) == 1
    assert len(fleet.warm()) == SIZE - 1


def test_fifty_parallel_sign_ups_get_each_database_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the pool is refilled. Nobody ever connects to the template, so no clone fails with SQLSTATE 55006."""
    monkeypatch.setattr(slots, "WAIT_FOR_SLOT_S", 60)  # a slow machine is no failure
    practices = [new_id() for _ in range(50)]
    with capture_logs() as logs, serving(fleet) as tenants, ThreadPoolExecutor(50) as threads:
        wait_for(tenants.is_ready)
        wait_for(lambda: len(fleet.warm()) == SIZE)
        answers = list(threads.map(tenants.put, practices))
        metrics = tenants.call("GET", "/metrics").text
    assert Counter(answer.status_code for answer in answers) == {201: 50}
    databases = {answer.json()["database"]: answer.json()["practice_id"] for answer in answers}
    assert len(databases) == 50
    assert {database: fleet.stamp_of(database) for database in databases} == databases
    assert {state for (state,) in fleet.query("SELECT state FROM tenant.shards")} == {"ready"}
    assert fleet.databases() == dict.fromkeys(databases, True) | dict.fromkeys(fleet.warm(), False)
    assert not databases.keys() & {*fleet.warm(), *fleet.warm("making")}
    assert [log for log in logs if log.get("fault")] == []
    made = {line.split()[0]: float(line.split()[1]) for line in metrics.splitlines() if "handed_out_total{" in line}
    assert made['gowebbo_shards_handed_out_total{made="ahead"}'] >= SIZE
    assert sum(made.values()) == 50


def test_the_pool_waits_while_sign_ups_wait_for_their_shards(fleet: Fleet) -> None:
    """And is filled afterwards by whoever was served last."""
    pool, making = fleet.app.state.pool, fleet.app.state.making
    release = threading.Event()

    async def rush() -> None:
        held = [asyncio.create_task(making.run(release.wait, 30)) for _ in range(fleet.settings.clones_in_parallel)]
        await asyncio.sleep(0)
        assert not making.has_queue
        queued = asyncio.create_task(making.run(release.wait, 30))
        await asyncio.sleep(0)
        assert making.has_queue
        assert await asyncio.to_thread(pool.refill)
        assert fleet.warm() == []
        release.set()
        await asyncio.gather(*held, queued)
        assert not making.has_queue

    asyncio.run(rush())
    assert pool.refill()
    assert len(fleet.warm()) == SIZE


def test_replicas_that_refill_at_once_make_no_more_than_one_would(fleet: Fleet) -> None:
    replicas = [Fleet(fleet.postgres, fleet.database, fleet.settings) for _ in range(4)]
    for replica in replicas:
        replica.servers.refresh()
    with ThreadPoolExecutor(len(replicas)) as threads:
        assert all(threads.map(lambda replica: replica.pool.refill(), replicas))
    assert len(fleet.warm()) == SIZE
    assert len(fleet.databases()) == SIZE
    for replica in replicas:
        replica.app.state.engine.dispose()
        replica.servers.close()


@pytest.mark.parametrize(("claimed", "count"), [(0, 4), (3, 4), (10, 10), (32, 32), (500, 32)])
def test_the_pool_grows_with_the_sign_ups_within_bounds(claimed: int, count: int) -> None:
    assert warm_pool.wanted(4, claimed) == count


def test_it_grows_after_sign_ups_and_falls_by_being_used_up(fleet: Fleet) -> None:
    for _ in range(SIZE + 2):
        fleet.shard()
    fleet.pool.refill()
    assert len(fleet.warm()) == SIZE + 2
    fleet.change("UPDATE tenant.shards SET created_at = created_at - interval '1 minute'")
    fleet.sweep()
    fleet.pool.refill()
    assert len(fleet.warm()) == SIZE + 2
    for left in (SIZE + 1, SIZE, SIZE):
        fleet.shard()
        fleet.change("UPDATE tenant.shards SET created_at = created_at - interval '1 minute'")
        fleet.pool.refill()
        assert len(fleet.warm()) == left


def test_no_more_are_made_than_the_server_has_room_for(fleet: Fleet) -> None:
    fleet.shard()
    fleet.change("UPDATE tenant.servers SET capacity = 2")
    fleet.pool.refill()
    assert len(fleet.warm()) == 1
    fleet.shard()
    fleet.pool.refill()
    assert fleet.warm() == []


def test_switched_off_nothing_is_made_and_what_is_there_is_used_up(fleet: Fleet) -> None:
    fleet.pool.refill()
    ready = fleet.warm()
    off = Fleet(fleet.postgres, fleet.database, fleet.settings.model_copy(update={"shard_warm_pool": 0}))
    off.servers.refresh()
    assert [off.shard().database for _ in range(SIZE)] == ready
    assert off.pool.refill()
    assert fleet.warm() == []


def test_the_running_service_refills_what_a_sign_up_took(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenant_service.main.ROUND_EVERY_S", 3600)  # so it was woken
    with serving(fleet) as tenants:
        wait_for(lambda: len(fleet.warm()) == SIZE)
        first = fleet.warm()[0]
        assert tenants.put(new_id()).json()["database"] == first
        wait_for(lambda: first not in fleet.warm() and len(fleet.warm()) == SIZE)
        wait_for(lambda: 'warm_shards{server="a",state="ready"} 3.0' in tenants.call("GET", "/metrics").text)


def test_a_server_that_fails_does_not_keep_another_from_being_refilled(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = f"{postgres.host}:{postgres.port}"
    fleet = new_fleet(postgres, shard_warm_pool=1, shard_servers=f"a={where},b={where}")
    furnish = shard_database.furnish

    def cut_off(session: AdminSession, database: str, **options: object) -> None:
        if fleet.query("SELECT server FROM tenant.warm_shards WHERE database = %s", database) == [("a",)]:
            session.rows("SELECT pg_terminate_backend(pg_backend_pid())")
        furnish(session, database, **options)

    monkeypatch.setattr(shard_database, "furnish", cut_off)
    try:
        fleet.servers.refresh()
        with capture_logs() as logs:
            assert fleet.pool.refill() is False
        assert [log["event"] for log in logs if log["log_level"] == "warning"] == ["warm_shard_not_made"]
        states = "SELECT server, state FROM tenant.warm_shards ORDER BY server"
        assert fleet.query(states) == [("a", "making"), ("b", "ready")]
        monkeypatch.undo()
        assert fleet.pool.refill()  # what stands at `making` counts, so that failing makes no heap of them
        fleet.sweep()
        assert fleet.query(states) == [("a", "ready"), ("b", "ready")]
    finally:
        fleet.drop_everything()


def test_a_newer_schema_has_them_made_anew(fleet: Fleet, newer_head: Callable[[], str]) -> None:
    fleet.pool.refill()
    old = fleet.warm()
    newer = newer_head()
    shard = fleet.shard()
    assert shard.database not in old
    assert fleet.pool.refill()
    fleet.sweep()
    assert not set(old) & set(fleet.warm())
    assert len(fleet.warm()) == SIZE
    assert fleet.query("SELECT DISTINCT revision FROM tenant.warm_shards") == [(newer,)]
    assert set(fleet.databases()) == {*fleet.warm(), shard.database}
    assert fleet.query("SELECT rolname FROM pg_roles WHERE rolname = ANY (%s)", old) == []
    assert fleet.shard().database not in old


def test_a_newer_releases_shards_are_left_to_it(fleet: Fleet) -> None:
    """While both run: dropping each other's shards would never end."""
    fleet.pool.refill()
    fleet.change("UPDATE tenant.warm_shards SET revision = 'newer'")
    theirs = fleet.warm()
    fleet.pool.refill()
    fleet.sweep()
    assert fleet.warm() == theirs
    assert fleet.databases() == dict.fromkeys(theirs, False)
    assert fleet.shard().database not in theirs


def test_a_drained_servers_shards_are_dropped_and_none_is_made(fleet: Fleet) -> None:
    fleet.pool.refill()
    fleet.change("UPDATE tenant.servers SET state = 'draining'")
    fleet.sweep()
    fleet.pool.refill()
    assert fleet.query("SELECT * FROM tenant.warm_shards") == []
    assert fleet.databases() == {}


class TestDirectoryRestoredToAnOlderState:
    """It tells of shards that are ready and were given away since."""

    @pytest.fixture(params=["open", "quarantined"])
    def given_away(self, fleet: Fleet, request: pytest.FixtureRequest) -> tuple[str, uuid.UUID]:
        """The database of a practice that the directory doesn't know; it believes the shard to be ready."""
        fleet.pool.refill()
        shard = fleet.shard()
        fleet.store_patient(shard.database)
        fleet.change("DELETE FROM tenant.shards")
        if request.param == "quarantined":
            fleet.sweep()
            fleet.change("DELETE FROM tenant.shards")
            assert fleet.databases()[shard.database] is False
        fleet.change(
            "INSERT INTO tenant.warm_shards (database, server, state, revision, created_at)"
            " VALUES (%s, 'a', 'ready', %s, '2020-01-01')",
            shard.database,
            migrating.head(migrating.SHARD),
        )
        return shard.database, shard.practice_id

    @pytest.fixture(autouse=True)
    def nothing_is_lost(self, fleet: Fleet, given_away: tuple[str, uuid.UUID]) -> Iterator[None]:
        """Whatever happened: it is the practice's still, and holds its patient."""
        yield
        database, practice_id = given_away
        assert fleet.stamp_of(database) == str(practice_id)
        execute_at(fleet.postgres.dsn(), f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
        assert fleet.query("SELECT count(*) FROM patients", database=database) == [(1,)]

    def test_it_is_not_handed_out_again(self, fleet: Fleet, given_away: tuple[str, uuid.UUID]) -> None:
        with capture_logs() as logs:
            shard = fleet.shard()
        assert shard.database != given_away[0]
        assert fleet.stamp_of(shard.database) == str(shard.practice_id)
        assert [log["event"] for log in logs if log["log_level"] == "error"] == ["claimed_shard_was_claimed_before"]
        assert fleet.provisioning.find(shard.practice_id) == shard
        fleet.store_patient(shard.database)
        fleet.sweep()
        assert fleet.databases()[given_away[0]] is False

    def test_parallel_calls_for_one_sign_up_get_the_same_other_place(
        self, fleet: Fleet, given_away: tuple[str, uuid.UUID]
    ) -> None:
        practice_id = new_id()
        with ThreadPoolExecutor(4) as threads:
            found = {shard for shard, _ in threads.map(lambda _: fleet.provisioning.ensure(practice_id), range(4))}
        assert found == {fleet.provisioning.find(practice_id)}
        fleet.store_patient(next(iter(found)).database)
        assert [name for name, is_open in fleet.databases().items() if is_open and name != given_away[0]] == [
            shard.database for shard in found
        ]

    def test_undoing_the_sign_up_that_took_it_does_not_drop_it(
        self, fleet: Fleet, given_away: tuple[str, uuid.UUID], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        practice_id = new_id()
        with monkeypatch.context() as cut_off:
            cut_off.setattr(shard_database, "find", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                fleet.provisioning.ensure(practice_id)
        assert fleet.query("SELECT database, state FROM tenant.shards") == [(given_away[0], "creating")]
        assert fleet.provisioning.release(practice_id).database is None
        fleet.sweep()
        assert fleet.databases()[given_away[0]] is False

    def test_the_next_sweep_finds_out(self, fleet: Fleet, given_away: tuple[str, uuid.UUID]) -> None:
        with capture_logs() as logs:
            fleet.sweep()
        assert given_away[0] not in fleet.warm()
        assert "warm_shards_forgotten" in [log["event"] for log in logs]
        assert fleet.databases()[given_away[0]] is False

    @pytest.mark.parametrize("state", ["making", "dropping"])
    def test_it_is_neither_finished_nor_dropped(
        self, fleet: Fleet, given_away: tuple[str, uuid.UUID], state: str
    ) -> None:
        fleet.change("UPDATE tenant.warm_shards SET state = %s WHERE database = %s", state, given_away[0])
        assert not fleet.pool.settle()
        assert given_away[0] not in fleet.warm()
