"""kill -9 at each step of a sign-up: afterwards the practice is active or fully undone, and no event is missing."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from auth_support import ServiceProcess, environment_of, wait_for

from shared.events import STREAM, Event


@pytest.fixture
def process(auth_settings, tmp_path):
    started = ServiceProcess(auth_settings(), tmp_path / "auth-service.log")
    yield started
    started.kill()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as pool:
        yield pool


def somebody_waits_for_a_lock(central) -> bool:
    return (
        central.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'auth-service' AND wait_event_type = 'Lock'"
        )
        > 0
    )


def published_practices(stream) -> list[str]:
    return [Event.from_fields(fields).practice_id for _, fields in stream.xrange(STREAM)]


def assert_email_is_free_again(client, central, tenant) -> None:
    """A new process finds what the killed one left, undoes it, and the same e-mail signs up."""
    central.age_signups()
    wait_for(lambda: central.value("SELECT count(*) FROM auth.practices") == 0)
    wait_for(lambda: not tenant.shards)
    assert client.sign_up().status_code == 201
    assert central.rows("SELECT DISTINCT status FROM auth.practices") == [("active",)]
    assert central.value("SELECT count(*) FROM auth.people") == 1
    assert len(tenant.shards) == 1


def test_killed_in_the_first_transaction(process, threads, central, tenant, start_auth):
    with central.transaction() as other:
        other.execute("LOCK TABLE auth.practices IN EXCLUSIVE MODE")
        process.sign_up_in_background(threads)
        wait_for(lambda: somebody_waits_for_a_lock(central))
        process.kill()
    assert not tenant.puts
    assert_email_is_free_again(start_auth().client, central, tenant)


def test_killed_while_the_shard_is_made(process, threads, central, tenant, start_auth):
    tenant.mode = "hang"
    process.sign_up_in_background(threads)
    wait_for(lambda: tenant.puts)
    process.kill()
    tenant.mode = "ok"
    tenant.resume.set()  # tenant-service itself goes on and makes the shard
    wait_for(lambda: tenant.shards)
    assert_email_is_free_again(start_auth().client, central, tenant)


def test_killed_in_the_second_transaction(process, threads, central, tenant, start_auth):
    tenant.mode = "hang"
    process.sign_up_in_background(threads)
    wait_for(lambda: tenant.puts)
    with central.transaction() as other:
        other.execute("SELECT 1 FROM auth.practices FOR UPDATE")
        tenant.mode = "ok"
        tenant.resume.set()
        wait_for(lambda: somebody_waits_for_a_lock(central))
        process.kill()
    assert_email_is_free_again(start_auth().client, central, tenant)


def test_killed_before_the_event_is_published(process, central, stream, start_auth):
    stream.client_pause(30_000, all=False)  # ms; writes only
    try:
        practice_id = process.client.sign_up().json()["result"]["id"]
        process.kill()
    finally:
        stream.client_unpause()
    assert central.value("SELECT publish_count FROM auth.outbox") == 0
    start_auth()
    wait_for(lambda: central.value("SELECT publish_count FROM auth.outbox") == 1)
    assert practice_id in published_practices(stream)


def test_killed_while_it_undoes(process, threads, central, tenant, start_auth):
    tenant.mode = "error"
    with central.transaction() as other:
        other.execute("LOCK TABLE auth.abandoned_signups IN EXCLUSIVE MODE")
        process.sign_up_in_background(threads)
        wait_for(lambda: somebody_waits_for_a_lock(central))
        process.kill()
    assert central.value("SELECT status FROM auth.practices") == "provisioning"
    tenant.mode = "ok"
    assert_email_is_free_again(start_auth().client, central, tenant)


def test_killed_before_the_shard_is_released(process, central, tenant, start_auth):
    tenant.mode = "error"
    assert process.client.sign_up().status_code == 503
    process.kill()
    tenant.mode = "ok"
    start_auth()
    wait_for(lambda: tenant.releases == tenant.puts)


def test_every_connection_to_the_database_broken_at_once_harms_no_later_call(process, central):
    assert process.client.sign_up().status_code == 201
    central.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'auth-service'")
    assert process.client.log_in().status_code == 200


def test_nothing_secret_is_logged(process, central, tenant, tmp_path, auth_settings):
    """Whatever happens: successes, refusals, faults of the database and of tenant-service."""
    password, email = "Zq7-very-secret", "zq7-person@example.com"
    tenant.mode = "error"
    process.client.sign_up(email, password=password, name="Zq7 Clinic")
    tenant.mode = "ok"
    process.client.sign_up(email, password=password, name="Zq7 Clinic")
    process.client.sign_up(email, password=password, name="Zq7 Clinic")
    process.client.sign_up("x", password="Zq7", name="\u0000Zq7")
    document = process.client.log_in(email, password).json()
    for token in (document["refresh_token"], "Zq7"):
        process.client.call("POST", "/api/v1/auth/refresh", {"refresh_token": token})
    central.rows("ALTER TABLE auth.people RENAME TO persons")
    assert process.client.log_in(email, password).status_code == 503
    central.rows("ALTER TABLE auth.persons RENAME COLUMN password TO hash")
    central.rows("ALTER TABLE auth.persons RENAME TO people")
    assert process.client.log_in(email, password).status_code == 500
    assert process.client.sign_up(f"other-{email}", password=password, name="Zq7 Clinic").status_code == 503
    log = (tmp_path / "auth-service.log").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert {"signup_failed", "shard_not_made", "database_unavailable", "unexpected_fault"} <= {
        line["event"] for line in lines
    }
    settings = environment_of(auth_settings())
    secrets = [document["token"], document["refresh_token"], "Zq7", "zq7", "SELECT", "INSERT", "$2b$"]
    secrets += [settings[name] for name in ("DB_PASS", "REDIS_PASS", "JWT_SECRET", "GATEWAY_SECRET")]
    for secret in secrets:
        assert secret not in log


def test_ended_politely_it_leaves_at_once(process):
    assert process.client.sign_up().status_code == 201
    assert process.end() in (0, -signal.SIGTERM)
