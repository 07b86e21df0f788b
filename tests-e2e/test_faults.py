"""Whatever is killed, what was promised is kept, and nothing is left half-made."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import psycopg2
import pytest
from e2e_api import PATIENTS, SIGNUP, Api, Practice, assert_error, new_sign_up, patient_path
from e2e_stack import (
    EmbeddedStack,
    StackFactory,
    column,
    eventually,
    eventually_none,
    pids_of,
    psql,
    rows,
    with_database,
)
from e2e_traffic import TRANSPORT, Promises, Traffic

PROCESSES = (
    "gateway",
    "auth-service",
    "tenant-service",
    "patient-service",
    "notifier",
    "notifier-worker",
    "postgres",
    "redis",
    "mailbox",
)
UNNOTICED_BY_CLIENTS = {"notifier", "notifier-worker", "redis", "mailbox"}
"""Mail and Redis don't count."""
UNNOTICED_BY_PATIENTS = UNNOTICED_BY_CLIENTS | {"auth-service", "tenant-service"}
"""Cached keys and directory entries serve on."""
ALLOWED = {200, 201, 409, 502, 503, 504}
BACK_WITHIN_S = 60
"""PostgreSQL's recovery waits for the disk, which others may keep busy."""
CONSISTENT_WITHIN_S = 30
MAIL_WITHIN_S = 60
"""A mail whose task died with its worker comes back after 15 to 20 s, from Celery or from the outbox."""


@dataclass(frozen=True)
class Scene:
    """A stack of this module's own, practices that are warm everywhere, and what was confirmed so far."""

    stack: EmbeddedStack
    api: Api
    practices: list[Practice]
    server_dsn: str
    central_dsn: str
    confirmed_emails: set[str]


@pytest.fixture(scope="module")
def scene(new_stack: StackFactory) -> Iterator[Scene]:
    """The scene before anything breaks."""
    stack = new_stack().start()
    api = Api(stack.url)
    practices = [Practice.join(api) for _ in range(4)]
    for one in practices:
        one.new_patient()
    server_dsn = stack.dsn()
    central_dsn = with_database(server_dsn, stack.central_database())
    yield Scene(stack, api, practices, server_dsn, central_dsn, {one.email for one in practices})
    api.close()


PRACTICES = "SELECT id::text, database_name, status FROM auth.practices"
SHARDS = "SELECT practice_id::text, database, state FROM tenant.shards WHERE state <> 'undone'"
LONELY = "SELECT id::text FROM auth.people WHERE id NOT IN (SELECT person_id FROM auth.memberships)"
WARM = "SELECT database, state FROM tenant.warm_shards"
DATABASES = "SELECT datname, datallowconn FROM pg_database WHERE starts_with(datname, 'shard_')"
PUBLISHED = (
    "SELECT event FROM auth.outbox o JOIN auth.practices p ON p.id = o.practice_id"
    " WHERE p.email = %s AND o.published_at IS NOT NULL"
)
ROLES = "SELECT rolname FROM pg_roles WHERE starts_with(rolname, 'shard_') AND rolcanlogin"


def half_made(scene: Scene) -> list[str]:
    """Everything that is in one place and lacks its counterpart in another; empty when all fits together."""
    try:
        practices, shards = rows(scene.central_dsn, PRACTICES), rows(scene.central_dsn, SHARDS)
        people, warm = column(scene.central_dsn, LONELY), dict(rows(scene.central_dsn, WARM))
        databases, roles = dict(rows(scene.server_dsn, DATABASES)), set(column(scene.server_dsn, ROLES))
    except psycopg2.OperationalError as fault:
        return [f"PostgreSQL is not back: {fault}"]
    faults = [f"practice {one} is {status}" for one, _, status in practices if status != "active"]
    faults += [f"shard {one} is {state}" for one, _, state in shards if state != "ready"]
    faults += [f"person {one} belongs to no practice" for one in people]
    faults += [f"{name}, made ahead, is {state}" for name, state in warm.items() if state != "ready"]
    faults += [
        f"{name} allows no connection" for name, allowed in databases.items() if not allowed and name not in warm
    ]
    faults += [f"{name} is open and belongs to nobody" for name in warm if databases.get(name)]
    in_practices, in_directory = ({(one, database) for one, database, _ in found} for found in (practices, shards))
    for what, difference in (
        ("practices and directory", in_practices ^ in_directory),
        ("directory and databases", ({database for _, database in in_directory} | set(warm)) ^ set(databases)),
        ("databases and roles", set(databases) ^ roles),
    ):
        faults += [f"{what} differ: {difference}"] if difference else []
    return faults


def _assert_kept(promises: Promises, api: Api) -> None:
    for practice, patient_id in promises.patients:
        assert practice.get(patient_path(patient_id)).status_code == 200
    for email in promises.practices.values():
        answer = api.log_in(email)
        assert answer.status_code == 200
        assert api.get(PATIENTS, token=answer.json()["token"]).json()["result"] == {"data": []}


def _assert_consistent(scene: Scene, *, since: float | None = None) -> None:
    """Nothing is half-made CONSISTENT_WITHIN_S after `since` (of time.monotonic), which is now if it isn't given."""
    left_s = CONSISTENT_WITHIN_S - (time.monotonic() - since if since is not None else 0.0)
    eventually_none(lambda: half_made(scene), "half-made", timeout_s=max(left_s, 0.0), poll_s=0.5)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_killed_process_costs_nothing_that_was_promised(scene: Scene, name: str) -> None:
    """The time counts from the kill; for PostgreSQL from its recovery, whose length is the disk's affair."""
    printed_before = len(scene.stack.printed())
    with Traffic(scene.stack, scene.practices) as traffic:
        traffic.wait_for_more(sign_ups=3, patients=10)
        victim = pids_of(scene.stack.status()[name])[0]
        since = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        eventually(
            lambda: (pids := pids_of(scene.stack.status()[name])) and victim not in pids,
            f"{name} runs again",
            timeout_s=BACK_WITHIN_S,
        )
        scene.stack.wait_until_ready(timeout_s=BACK_WITHIN_S)
        since = time.monotonic() if name == "postgres" else since
        traffic.wait_for_more(sign_ups=3, patients=10)
    _assert_consistent(scene, since=since)
    promises = traffic.promises
    scene.confirmed_emails.update(promises.practices.values())

    assert name in scene.stack.printed()[printed_before:], "the stack doesn't say that it starts the process again"
    allowed = ALLOWED | ({TRANSPORT} if name == "gateway" else set())
    assert set(promises.sign_ups) <= ({201} if name in UNNOTICED_BY_CLIENTS else allowed)
    assert set(promises.patient_calls) <= ({200, 201} if name in UNNOTICED_BY_PATIENTS else allowed)
    _assert_kept(promises, scene.api)


def test_the_email_of_a_failed_sign_up_is_free_again(scene: Scene) -> None:
    """A sign-up meets a tenant-service that doesn't answer: 503, and nothing remains of it."""
    body = new_sign_up()
    with stopped(scene.stack, "tenant-service"):
        answer = scene.api.post(SIGNUP, json=body)
        assert answer.status_code in {503, 504}, answer.text
    again = eventually(
        lambda: (one := scene.api.post(SIGNUP, json=body)).status_code not in {409, 502, 503, 504} and one,
        "the e-mail can be used again",
        timeout_s=CONSISTENT_WITHIN_S,
        poll_s=0.5,
    )
    assert again.status_code == 201, again.text
    scene.confirmed_emails.add(body["email"])
    _assert_consistent(scene)


def test_a_hung_service_is_answered_in_time_and_named_as_missing(scene: Scene) -> None:
    """The others go on."""
    one = scene.practices[0]
    with stopped(scene.stack, "patient-service"):
        assert_error(one.get(PATIENTS), 504)
        missing = httpx.get(f"{scene.stack.url}/readyz", timeout=30)
        assert missing.status_code == 503
        assert "patient-service" in missing.text
        assert httpx.get(f"{scene.stack.url}/livez", timeout=30).status_code == 200
        assert scene.api.log_in(one.email).status_code == 200
    scene.stack.wait_until_ready(timeout_s=BACK_WITHIN_S)
    eventually(lambda: one.get(PATIENTS).status_code == 200, "patients can be read", timeout_s=BACK_WITHIN_S)


def test_while_redis_hangs_sign_ups_succeed_and_the_mails_come_later(scene: Scene) -> None:
    """A black-holed Redis costs nobody anything but time."""
    late = [new_sign_up() for _ in range(5)]
    with stopped(scene.stack, "redis"):
        assert [scene.api.post(SIGNUP, json=body).status_code for body in late] == [201] * 5
        assert scene.stack.is_ready()
    scene.confirmed_emails.update(body["email"] for body in late)


def test_a_redis_that_is_gone_when_a_mail_is_done_does_not_end_all_mail(scene: Scene) -> None:
    """The worker can't acknowledge its task: it has to connect anew, not to wait for ever with the next ones."""
    stack, first, second = scene.stack, new_sign_up(), new_sign_up()
    assert stack.process is not None
    redis = pids_of(stack.status()["redis"])[0]
    worker_log = stack.home / "logs" / "notifier-worker.log"
    logged_before = worker_log.stat().st_size
    with contextlib.ExitStack() as hung:
        with stopped(stack, "mailbox"):
            assert scene.api.post(SIGNUP, json=first).status_code == 201
            eventually(lambda: column(scene.central_dsn, PUBLISHED, first["email"]), "published", timeout_s=10)
            hung.enter_context(stopped(stack, "auth-service"))  # the task goes on to wait for its receipt
        stack.mailbox.wait_for(first["email"])
        hung.enter_context(paused([stack.process.pid]))  # nobody starts Redis again meanwhile
        os.kill(redis, signal.SIGKILL)
        eventually(
            lambda: re.search("Cannot connect|Couldn't", worker_log.read_text()[logged_before:]),
            "the worker misses Redis",
            timeout_s=30,
        )
    stack.wait_until_ready(timeout_s=BACK_WITHIN_S)
    assert scene.api.post(SIGNUP, json=second).status_code == 201
    stack.mailbox.wait_for(second["email"], timeout_s=MAIL_WITHIN_S)


def test_every_confirmed_sign_up_gets_its_welcome_mail(scene: Scene) -> None:
    """Over everything above: at least once, with a Message-ID that shows what is a repetition."""
    scene.confirmed_emails.add(Practice.join(scene.api).email)
    mailbox = scene.stack.mailbox
    eventually_none(lambda: mailbox.missing(scene.confirmed_emails), "without mail", timeout_s=MAIL_WITHIN_S)
    for email in scene.confirmed_emails:
        assert len({message["Message-ID"] for message in mailbox.sent_to(email)}) == 1


def test_a_central_database_restored_to_an_older_state_costs_no_shard(scene: Scene) -> None:
    """What has no owner any more is quarantined, never dropped; everybody else works on."""
    stack, central = scene.stack, scene.stack.central_database()
    _back_up(scene, central)
    lost = [eventually(lambda: _joined(scene.api), "a sign-up", timeout_s=BACK_WITHIN_S) for _ in range(3)]
    for number, one in enumerate(lost):
        one.new_patient(name=f"lost {number}")
    databases = {one["id"]: one["database"] for one in stack.command_json("practices", "list")}
    orphans = [databases[one.id] for one in lost]

    with frozen(scene.server_dsn, central), psql(scene.server_dsn) as cursor:
        cursor.execute(f"ALTER DATABASE {central} RENAME TO the_lost_day")
        cursor.execute(f"ALTER DATABASE yesterday RENAME TO {central}")
    stack.wait_until_ready(timeout_s=BACK_WITHIN_S)

    quarantined = "SELECT datname FROM pg_database WHERE datname = ANY (%s) AND NOT datallowconn"
    eventually(
        lambda: len(rows(scene.server_dsn, quarantined, orphans)) == len(orphans), "orphans quarantined", timeout_s=60
    )
    for one in scene.practices:
        assert one.get(PATIENTS).status_code == 200
    assert scene.api.sign_up().status_code == 201
    # and they are whole: whoever has the newer backup can take them back
    for number, database in enumerate(orphans):
        with psql(scene.server_dsn) as cursor:
            cursor.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
        assert column(with_database(scene.server_dsn, database), "SELECT name FROM patients") == [f"lost {number}"]


def _back_up(scene: Scene, central: str) -> None:
    with frozen(scene.server_dsn, central), psql(scene.server_dsn) as cursor:
        cursor.execute(f"CREATE DATABASE yesterday TEMPLATE {central}")
    scene.stack.wait_until_ready(timeout_s=BACK_WITHIN_S)


def _joined(api: Api) -> Practice | None:
    try:
        return Practice.join(api)
    except AssertionError:
        return None


@contextlib.contextmanager
def stopped(stack: EmbeddedStack, name: str) -> Iterator[None]:
    """A process that neither answers nor dies."""
    with paused(pids_of(stack.status()[name])):
        yield


@contextlib.contextmanager
def paused(pids: list[int]) -> Iterator[None]:
    """The same by process ids."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def frozen(server_dsn: str, database: str) -> Iterator[None]:
    """A database that nobody is connected to, as copying and renaming want it."""
    with psql(server_dsn) as cursor:
        cursor.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")

        def empty() -> bool:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,))
            return not cursor.fetchall()

        eventually(empty, f"nobody is connected to {database}", timeout_s=10)
    try:
        yield
    finally:
        with psql(server_dsn) as cursor:
            cursor.execute(
                "UPDATE pg_database SET datallowconn = true WHERE NOT datistemplate AND datname = ANY (%s)",
                ([database, "yesterday", "the_lost_day"],),
            )
