"""Jobs: one at a time of each kind, done once, and carried on by whoever is left when a process dies."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from migration_stand import HEAD, Order, behind, ledger, row_of, states, table_locked
from sqlalchemy.exc import OperationalError
from tenant_stand import ADMIN, AUTH, Fleet, Tenants, execute_at, wait_for

from gowebbo_stack.ports import free_port
from shared.context import Caller
from shared.ids import new_id
from shared.roles import PERMISSIONS, Permission
from tenant_service.central import central_engine
from tenant_service.exceptions import JobUnderWayError
from tenant_service.jobs import Jobs, Progress
from tenant_service.main import create_app
from tenant_service.storage.jobs import JobState

MIGRATE = "/api/v1/admin/shards/migrate"
Book = Callable[..., Jobs]


@pytest.fixture
def book(fleet: Fleet) -> Iterator[Book]:
    """Makes the job book of another replica that knows these deeds."""
    engines = []

    def make(**deeds: Any) -> Jobs:
        engines.append(central_engine(fleet.settings))
        return Jobs(engines[-1], deeds, before_each=lambda: None)

    yield make
    for engine in engines:
        engine.dispose()


def echo(arguments: Mapping[str, Any], _: Progress) -> dict[str, Any]:
    return {"echo": dict(arguments)}


def test_a_job_is_done_and_its_result_kept(book: Book) -> None:
    jobs = book(echo=echo)
    job = jobs.add("echo", {"a": 1})
    assert (job.state, job.done, job.total, job.result, job.error) == (JobState.WAITING, 0, None, None, None)
    assert jobs.do_waiting()
    job = jobs.find(job.id)
    assert (job.state, job.result, job.error) == (JobState.DONE, {"echo": {"a": 1}}, None)
    assert jobs.add("echo", {"a": 1}).id != job.id


def test_a_deed_that_fails_fails_its_job_only(book: Book) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("with a secret")

    jobs = book(fails=fail, echo=echo)
    first, second = jobs.add("fails", {}), jobs.add("echo", {})
    jobs.do_waiting()
    assert (jobs.find(first.id).state, jobs.find(first.id).error) == (
        JobState.FAILED,
        "It failed unexpectedly: ValueError.",
    )
    assert jobs.find(second.id).state is JobState.DONE


def test_the_same_job_isnt_added_twice_and_another_of_its_kind_is_refused(book: Book) -> None:
    jobs = book(echo=echo)
    with ThreadPoolExecutor(4) as threads:
        ids = {job.id for job in threads.map(lambda _: jobs.add("echo", {"a": 1}), range(8))}
    assert len(ids) == 1
    with pytest.raises(JobUnderWayError):
        jobs.add("echo", {"a": 2})


def test_replicas_do_each_job_once(book: Book) -> None:
    done, entered, release = [], threading.Event(), threading.Event()

    def slow(*_: Any) -> None:
        entered.set()
        release.wait(30)
        done.append(1)

    one, other = book(slow=slow), book(slow=slow)
    job = one.add("slow", {})
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(one.do_waiting)
        assert entered.wait(30)
        assert other.do_waiting()  # at once: it is taken
        assert done == []
        release.set()
        running.result()
    other._do(job.id)  # it was on its list when the first one finished
    assert done == [1]
    assert other.find(job.id).state is JobState.DONE


def test_another_releases_job_is_left_to_it(book: Book) -> None:
    newer, older = book(echo=echo, new=echo), book(echo=echo)
    job = newer.add("new", {})
    older.do_waiting()
    assert older.find(job.id).state is JobState.WAITING


def test_progress_is_written_while_the_deed_goes_on(book: Book) -> None:
    seen = []

    def count(_: Mapping[str, Any], progress: Progress) -> None:
        for number in range(5):
            progress.note(number, 5)
            job = jobs.find(ids[0])
            seen.append((job.state, job.done, job.total))
        progress.note(5, 5)

    jobs = book(count=count)
    ids = [jobs.add("count", {}).id]
    jobs.do_waiting()
    assert seen[0] == (JobState.RUNNING, 0, 5)
    assert (jobs.find(ids[0]).done, jobs.find(ids[0]).total) == (5, 5)


def test_whoever_lost_the_lock_learns_it_and_the_job_goes_on(fleet: Fleet, book: Book) -> None:
    """The central database restarted, say: another may be at the job already, so this one must not write to it."""
    begun = []

    def loses_its_session(_: Mapping[str, Any], progress: Progress) -> str:
        begun.append(1)
        if len(begun) == 1:
            query = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
            )
            fleet.query(query, fleet.database)
        progress.note(1, 1)
        return "done"

    jobs = book(loses=loses_its_session)
    job = jobs.add("loses", {})
    with pytest.raises(OperationalError):
        jobs.do_waiting()
    assert jobs.find(job.id).state is JobState.WAITING
    jobs.do_waiting()
    assert (jobs.find(job.id).result, len(begun)) == ("done", 2)


def test_a_process_that_ends_leaves_its_job_to_the_next(book: Book) -> None:
    def stops(_: Mapping[str, Any], progress: Progress) -> None:
        ending.stop()
        progress.note(1, 2)

    ending, next_one = book(job=stops), book(job=echo)
    job = ending.add("job", {})
    assert ending.do_waiting()
    assert ending.find(job.id).state is JobState.WAITING
    next_one.do_waiting()
    assert next_one.find(job.id).state is JobState.DONE


def test_what_ended_long_ago_is_deleted(fleet: Fleet, book: Book) -> None:
    jobs = book(echo=echo)
    old, recent = jobs.add("echo", {}), None
    jobs.do_waiting()
    execute_at(fleet.postgres.dsn(fleet.database), "UPDATE tenant.jobs SET updated_at = now() - interval '8 days'")
    recent = jobs.add("echo", {})
    jobs.do_waiting()
    assert fleet.query("SELECT id::text FROM tenant.jobs") == [(str(recent.id),)]
    assert old.id != recent.id


# through the door


def test_a_migration_is_a_job(tenants: Tenants, fleet: Fleet) -> None:
    behind(fleet, 3)
    order = Order(tenants, canary=1)
    assert order.answer.headers["location"] == f"/api/v1/admin/jobs/{order.id}"
    result = order.result(tenants)
    assert (result["head"], Counter(states(result).values())) == (HEAD, {"done": 3})
    job = order.now(tenants)
    assert (job["kind"], job["done"], job["total"], job["error"]) == ("migrate-shards", 3, 3, None)


def test_only_the_admin_may_operate_and_read_jobs(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PERMISSIONS, "viewer", frozenset({Permission.PLATFORM_READ}))
    assert tenants.call("POST", MIGRATE, caller=Caller(role="viewer"), json={}).status_code == 403
    for caller, status in ((Caller(role="owner"), 403), (AUTH, 403), (None, 401)):
        assert tenants.call("POST", MIGRATE, caller=caller, json={}).status_code == status
        assert tenants.call("GET", f"/api/v1/admin/jobs/{new_id()}", caller=caller).status_code == status
    answer = tenants.call("GET", f"/api/v1/admin/jobs/{new_id()}", caller=ADMIN)
    assert (answer.status_code, answer.json()["type"]) == (404, "/errors/job-unknown")


@pytest.mark.parametrize("body", [{"canary": -1}, {"canary": "1"}, {"canary": True}, {"other": 1}])
def test_a_faulty_order_is_refused(tenants: Tenants, body: dict[str, Any]) -> None:
    assert tenants.call("POST", MIGRATE, caller=ADMIN, json=body).status_code == 422


class ServiceProcess:
    """tenant-service as a process of its own."""

    def __init__(self, fleet: Fleet) -> None:
        self.port = free_port()
        environment = {"PATH": os.defpath, "HOST": "127.0.0.1", "PORT": str(self.port), **fleet.environment}
        self._process = subprocess.Popen([sys.executable, "-m", "tenant_service"], env=environment)
        self.tenants = Tenants(f"http://127.0.0.1:{self.port}")
        wait_for(self._is_ready, deadline_s=60)

    def _is_ready(self) -> bool:
        try:
            return self.tenants.is_ready()
        except httpx.TransportError:
            return False

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(60)


def test_a_process_that_has_just_begun_knows_the_servers_before_it_goes_on_with_a_job(fleet: Fleet) -> None:
    shards = behind(fleet, 2)
    app = create_app(fleet.settings)
    jobs: Jobs = app.state.jobs
    try:
        job = jobs.add("migrate-shards", {})
        jobs.do_waiting()
        result = jobs.find(job.id).result
        assert states(result) == {shard.database: "done" for shard in shards}
    finally:
        app.state.servers.close()
        app.state.engine.dispose()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_ends_in_mid_run_is_followed_by_one_that_does_what_is_left(
    fleet: Fleet, how: signal.Signals
) -> None:
    shards = behind(fleet, 30)
    first = ServiceProcess(fleet)
    second = None
    try:
        with table_locked(fleet, shards[15]):  # each try takes 2 s: the run can't be over before the process ends
            order = Order(first.tenants)
            wait_for(lambda: len(ledger(fleet)) >= 10)
            first.end(how)
        before = ledger(fleet)
        assert 10 <= len(before) < 30
        second = ServiceProcess(fleet)
        result = order.result(second.tenants)
    finally:
        for process in filter(None, (first, second)):
            process.end()
    assert Counter(states(result).values()) == {"done": 30}
    after = ledger(fleet)
    assert {name: after[name] for name in before if before[name][1] == "done"} == {
        name: entry for name, entry in before.items() if entry[1] == "done"
    }
    done_before = next(name for name, entry in before.items() if entry[1] == "done")
    [shard] = [shard for shard in shards if shard.database == done_before]
    assert row_of(result, shard)["seconds"] == before[done_before][2]  # as the ledger has it
