"""Signing up: all of a practice, or nothing of it."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from auth_support import wait_for

from auth_service import signup


def nothing_is_left(central) -> bool:
    return (
        central.value(
            "SELECT (SELECT count(*) FROM auth.people) + (SELECT count(*) FROM auth.practices)"
            " + (SELECT count(*) FROM auth.memberships) + (SELECT count(*) FROM auth.outbox)"
        )
        == 0
    )


def test_sign_up_makes_an_active_practice_with_its_shard_and_owner(client, central, tenant):
    answer = client.sign_up("Clinic@Example.com", name="  Sunrise Clinic ")
    assert answer.status_code == 201
    document = answer.json()
    practice_id = document["result"].pop("id")
    assert document == {
        "success": True,
        "status": 201,
        "message": "Practice registered successfully!",
        "result": {"name": "Sunrise Clinic", "email": "Clinic@Example.com"},
    }
    stored = central.rows("SELECT id::text, status, database_name, email FROM auth.practices")
    assert stored == [(practice_id, "active", tenant.shards[practice_id], "Clinic@Example.com")]
    assert central.rows("SELECT practice_id::text, role FROM auth.memberships") == [(practice_id, "owner")]
    people = central.rows("SELECT email, email_key, password = (SELECT password FROM auth.practices) FROM auth.people")
    assert people == [("Clinic@Example.com", "clinic@example.com", True)]
    assert tenant.unsigned == 0


def test_a_taken_email_is_refused_in_any_case(client, central):
    assert client.sign_up("clinic@example.com").status_code == 201
    refused = client.sign_up("CLINIC@EXAMPLE.COM", name="Another Clinic")
    assert refused.status_code == 409
    assert refused.json()["type"] == "/errors/email-taken"
    assert "@" not in refused.text
    assert central.value("SELECT count(*) FROM auth.practices") == 1


def test_of_fifty_parallel_sign_ups_with_one_email_one_wins(client, central, tenant):
    with ThreadPoolExecutor(50) as threads:
        statuses = sorted(threads.map(lambda _: client.sign_up().status_code, range(50)))
    assert statuses == [201] + [409] * 49
    assert central.value("SELECT count(*) FROM auth.people") == 1
    assert len(tenant.shards) == 1


@pytest.mark.parametrize("mode", ["error", "drop", "drop-after", "nonsense"])
def test_a_failing_tenant_service_leaves_nothing_and_frees_the_email(client, central, tenant, mode):
    tenant.mode = mode
    refused = client.sign_up()
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert nothing_is_left(central)

    tenant.mode = "ok"
    assert client.sign_up().status_code == 201
    abandoned = tenant.puts[0]
    wait_for(lambda: abandoned in tenant.releases)
    assert list(tenant.shards) == [tenant.puts[1]]
    wait_for(lambda: central.value("SELECT count(*) FROM auth.abandoned_signups WHERE released_at IS NULL") == 0)


def test_an_unreachable_tenant_service_leaves_nothing_and_is_told_when_it_is_back(client, central, tenant):
    tenant.kill()
    assert client.sign_up().status_code == 503
    assert nothing_is_left(central)
    assert central.value("SELECT count(*) FROM auth.abandoned_signups WHERE released_at IS NULL") == 1

    tenant.start()
    wait_for(lambda: tenant.releases)
    assert client.sign_up().status_code == 201


def test_a_hanging_tenant_service_is_given_up_within_the_budget(client, central, tenant, monkeypatch):
    monkeypatch.setattr(signup, "BUDGET_S", 0.5)
    tenant.mode = "hang"
    assert client.sign_up().status_code == 503
    assert nothing_is_left(central)

    # the call that was given up is still running there: it must not make a shard any more
    tenant.mode = "ok"
    wait_for(lambda: tenant.releases)
    tenant.resume.set()
    monkeypatch.setattr(signup, "BUDGET_S", 60.0)
    assert client.sign_up().status_code == 201
    assert list(tenant.shards) == [tenant.puts[1]]


def test_a_tenant_service_killed_in_mid_call_leaves_nothing(client, central, tenant):
    tenant.mode = "hang"
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(client.sign_up)
        wait_for(lambda: tenant.puts)
        tenant.kill()
        assert answer.result().status_code == 503
    assert nothing_is_left(central)
    tenant.mode = "ok"
    tenant.start()
    wait_for(lambda: tenant.releases == tenant.puts)
    assert not tenant.shards


def test_a_sign_up_that_the_reconciler_overtook_is_refused(client, central, tenant):
    tenant.mode = "hang"
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(client.sign_up)
        wait_for(lambda: tenant.puts)
        central.age_signups()
        wait_for(lambda: central.value("SELECT count(*) FROM auth.abandoned_signups") == 1)
        tenant.mode = "ok"
        tenant.resume.set()
        assert answer.result().status_code == 503
    assert nothing_is_left(central)


def test_a_database_that_refuses_the_second_transaction_leaves_it_to_the_reconciler(client, central, tenant):
    tenant.mode = "hang"
    with ThreadPoolExecutor(1) as threads, central.transaction() as other:
        answer = threads.submit(client.sign_up)
        wait_for(lambda: tenant.puts)
        other.execute("SELECT 1 FROM auth.practices FOR UPDATE")
        tenant.mode = "ok"
        tenant.resume.set()
        refused = answer.result()
        assert refused.status_code == 503
        assert central.value("SELECT status FROM auth.practices") == "provisioning"
    central.age_signups()
    wait_for(lambda: nothing_is_left(central))
    wait_for(lambda: not tenant.shards)
    assert client.sign_up().status_code == 201


def test_a_commit_whose_answer_was_lost_is_a_success(auth, central, monkeypatch):
    """The client must not be told to try again when the practice exists: it would get 409."""
    rule = auth.app.state.rules.signing_up
    finish = rule._finish

    def finish_and_lose_the_answer(*arguments):
        finish(*arguments)
        with rule._database.engine.begin() as connection:
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(rule, "_finish", finish_and_lose_the_answer)
    assert auth.client.sign_up().status_code == 201
    assert central.value("SELECT status FROM auth.practices") == "active"
    assert central.value("SELECT count(*) FROM auth.outbox") == 1


def test_without_the_central_database_sign_up_and_log_in_answer_503(start_auth):
    client = start_auth(db_port=1).client
    for answer in (client.sign_up(), client.log_in()):
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
    assert client.http.get("/livez").status_code == 200
    assert client.http.get("/readyz").json()["missing"] == {"central database": "unreachable"}


def test_hostile_names_are_only_names(client, central, tenant):
    name = """x"; DROP SCHEMA auth CASCADE; -- '{}%s\\"""
    answer = client.sign_up(name=name)
    assert answer.status_code == 201
    assert answer.json()["result"]["name"] == name
    assert central.value("SELECT name FROM auth.practices") == name
    assert "drop" not in next(iter(tenant.shards.values())).lower()


def test_an_address_that_signs_up_without_end_is_stopped_before_anything_is_made(start_auth, tenant):
    client = start_auth(signups_per_address=2).client
    answers = [client.sign_up(f"endless-{n}@example.com") for n in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 429]
    assert int(answers[2].headers["Retry-After"]) > 0
    assert answers[2].json()["type"] == "/errors/too-many-calls"
    assert len(tenant.puts) == 2


def test_a_taken_email_costs_no_hash(client, monkeypatch):
    assert client.sign_up("taken@example.com").status_code == 201
    hashed = []
    monkeypatch.setattr("auth_service.passwords.bcrypt.hashpw", lambda *_: hashed.append(1))
    assert client.sign_up("Taken@example.com").status_code == 409
    assert not hashed
