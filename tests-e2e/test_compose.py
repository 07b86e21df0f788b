"""docker-compose.yml, built and run: the same journeys, what its containers may do, and kills that lose nothing."""

import json
import secrets
from collections.abc import Iterator

import pytest
from e2e_api import ADMIN_PRACTICES, PATIENTS, Api, Practice, assert_error, assert_success, patient_path
from e2e_compose import Composition
from e2e_stack import eventually, eventually_none

pytestmark = pytest.mark.compose

SERVICES = ("gateway", "auth-service", "tenant-service", "patient-service", "notifier", "notifier-worker")
NEAR_SHARDS = ("tenant-service", "patient-service")
STORES = ("postgres", "redis")
STEPS = ("prepare", "migrate-auth", "migrate-tenant")
ADMIN_SHARDS = "/api/v1/admin/shards"
MAIL_WITHIN_S = 90
BACK_WITHIN_S = 90


@pytest.fixture(scope="module")
def composition(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    """Built and running; everything of it is gone at the end."""
    one = Composition(f"gowebbo-e2e-{secrets.token_hex(3)}", tmp_path_factory.mktemp("compose") / "secrets")
    one.make_secrets()
    try:
        one.build()
        one.up()
        yield one
    finally:
        one.down()


@pytest.fixture(scope="module")
def compose_api(composition: Composition) -> Iterator[Api]:
    api = Api(composition.url)
    yield api
    api.close()


@pytest.fixture(scope="module")
def resident(compose_api: Api) -> Practice:
    """A practice with a patient, both of which must survive everything below."""
    joined = Practice.join(compose_api)
    joined.new_patient(name="Resident")
    return joined


# the journeys


def test_a_practice_signs_up_works_and_gets_its_mail(composition: Composition, compose_api: Api) -> None:
    joined = Practice.join(compose_api, name="Compose Clinic & Söhne")
    created = joined.new_patient()
    assert joined.patients() == [created]
    assert_success(joined.call("DELETE", patient_path(created["id"])), 200, "Patient deleted successfully!")
    assert joined.patients() == []
    eventually_none(lambda: {joined.email} - composition.mailed(), "without mail", timeout_s=MAIL_WITHIN_S)
    [mail] = [one for one in composition.mails() if one["To"] == joined.email]
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert html is not None
    assert joined.name in text.get_content()
    assert "Compose Clinic &amp; Söhne" in html.get_content()


def test_strangers_stay_strangers(compose_api: Api, resident: Practice) -> None:
    stranger = Practice.join(compose_api)
    [patient] = resident.patients()
    for method, deed in (("GET", ""), ("DELETE", ""), ("POST", "/restore")):
        assert_error(stranger.call(method, patient_path(patient["id"], deed)), 404)
    assert stranger.patients() == []
    assert_error(compose_api.get(PATIENTS, headers={"X-Role": "owner", "X-Practice-Id": resident.id}), 401)


def test_the_admin_logs_in_with_the_password_from_the_file(
    composition: Composition, compose_api: Api, resident: Practice
) -> None:
    answer = compose_api.get(ADMIN_PRACTICES, auth=("admin", composition.secret("admin_password")))
    assert resident.id in {one["id"] for one in answer.json()["result"]["data"]}


def test_each_practice_has_a_database_and_a_role_of_its_own(
    composition: Composition, compose_api: Api, resident: Practice
) -> None:
    answer = compose_api.get(ADMIN_PRACTICES, auth=("admin", composition.secret("admin_password")))
    databases = {one["database_name"] for one in answer.json()["result"]["data"]}
    assert len(databases) == len(answer.json()["result"]["data"])
    shards = "SELECT datname FROM pg_database WHERE starts_with(datname, 'shard_') AND datallowconn"
    assert set(composition.query(shards)) == databases
    roles = "SELECT rolname FROM pg_roles WHERE starts_with(rolname, 'shard_') AND rolcanlogin AND NOT rolsuper"
    assert databases <= set(composition.query(roles))  # and those of shards made ahead


# what the containers may do


def test_only_the_gateway_is_published(composition: Composition) -> None:
    """The catcher's page is for people on this very machine."""
    containers = composition.containers()
    published = {
        name: [binding for bindings in (one.ports or {}).values() for binding in bindings or []]
        for name, one in containers.items()
    }
    assert {binding["HostPort"] for binding in published.pop("gateway")} == {str(composition.port)}
    assert {binding["HostIp"] for binding in published.pop("mailbox")} == {"127.0.0.1"}
    assert not any(published.values()), published


def test_containers_run_without_root_and_cannot_write_their_file_system(composition: Composition) -> None:
    containers = composition.containers()
    for name in (*SERVICES, *STORES, "mailbox"):
        container = containers[name]
        limits = container.attrs["HostConfig"]
        assert limits["ReadonlyRootfs"], name
        assert limits["CapDrop"] == ["ALL"], name
        assert not limits["Privileged"], name
        assert any("no-new-privileges" in option for option in limits["SecurityOpt"]), name
        owners = {process[0] for process in container.top(ps_args="-eo uid,pid")["Processes"]}
        assert owners, name
        assert "0" not in owners, name
    for name in SERVICES:
        code, _ = containers[name].exec_run(["python", "-c", "open('/opt/x', 'w')"])
        assert code != 0, name


def test_no_secret_is_in_an_environment_or_an_image(composition: Composition) -> None:
    secret_names = ("db_superuser_pass", "auth_db_pass", "tenant_db_pass", "redis_pass", "jwt_secret")
    values = [composition.secret(name) for name in (*secret_names, "gateway_secret", "shard_secret", "admin_password")]
    for name, container in composition.containers().items():
        shown = str(container.attrs["Config"]) + str(container.image.history())
        assert not any(value in shown for value in values), name


def test_only_the_preparing_step_and_postgres_know_the_superuser(composition: Composition) -> None:
    services = composition.configuration()["services"]
    told = {
        name
        for name, one in services.items()
        if any(s["source"] == "db_superuser_pass" for s in one.get("secrets", []))
    }
    assert told == {"prepare", "postgres"}


def test_everything_is_healthy_and_the_steps_ended_well(composition: Composition) -> None:
    containers = composition.containers()
    for name in (*SERVICES, *STORES):
        assert containers[name].health == "healthy", name
    for name in STEPS:
        assert containers[name].attrs["State"]["ExitCode"] == 0, name


# faults


@pytest.mark.parametrize("name", [*SERVICES, *STORES])
def test_compose_kill_and_up_again_lose_nothing(
    composition: Composition, compose_api: Api, resident: Practice, name: str
) -> None:
    """Sign-ups are confirmed right before the kill, so that events are on their way while it happens."""
    before = [Practice.join(compose_api) for _ in range(3)]
    patients = [one.new_patient() for one in before]
    composition.kill(name)
    composition.up()
    after = eventually(lambda: _try_to_join(compose_api), "a sign-up", timeout_s=BACK_WITHIN_S)
    for one, patient in zip(before, patients, strict=True):
        assert one.patients() == [patient]
    assert [one["name"] for one in resident.patients()] == ["Resident"]
    emails = {one.email for one in (*before, after)}
    eventually_none(lambda: emails - composition.mailed(), "without mail", timeout_s=MAIL_WITHIN_S)


def _try_to_join(api: Api) -> Practice | None:
    try:
        return Practice.join(api)
    except AssertionError:
        return None


@pytest.mark.parametrize("name", SERVICES)
def test_a_process_that_ends_is_started_again_by_docker(composition: Composition, name: str) -> None:
    container = composition.containers()[name]
    started_at = container.attrs["State"]["StartedAt"]
    container.exec_run(["python", "-c", "import os, signal; os.kill(1, signal.SIGTERM)"])

    def is_back() -> bool:
        container.reload()
        return bool(container.attrs["State"]["Running"]) and container.attrs["State"]["StartedAt"] != started_at

    eventually(is_back, f"{name} runs again", timeout_s=BACK_WITHIN_S)
    composition.up()


def test_a_service_that_is_restarted_by_the_engine_serves_on(
    composition: Composition, compose_api: Api, resident: Practice
) -> None:
    for name in ("patient-service", "auth-service", "tenant-service"):
        composition.containers()[name].restart(timeout=20)
    composition.up()
    eventually(lambda: resident.get(PATIENTS).status_code == 200, "patients can be read", timeout_s=BACK_WITHIN_S)
    assert [one["name"] for one in resident.patients()] == ["Resident"]


def test_down_and_up_keep_the_data(composition: Composition, resident: Practice) -> None:
    composition.compose("down")
    composition.up()
    assert [one["name"] for one in resident.patients()] == ["Resident"]


def test_a_further_shard_server_takes_new_practices(
    composition: Composition, compose_api: Api, resident: Practice
) -> None:
    server = composition.start_further_server()
    eventually(server.is_ready, "the further server answers", timeout_s=BACK_WITHIN_S)
    where = {"DB_HOST": server.host, "DB_PORT": server.port, "DB_SUPERUSER_PASS": server.superuser_password}
    composition.compose("run", "--rm", "prepare-server", **where)
    composition.environment["SHARD_SERVERS"] = f"a=postgres:5432,b={server.host}:{server.port}"
    composition.up()
    newcomer = eventually(lambda: _try_to_join(compose_api), "a sign-up", timeout_s=BACK_WITHIN_S)
    created = newcomer.new_patient()
    assert newcomer.patients() == [created]
    assert [one["name"] for one in resident.patients()] == ["Resident"]
    answer = compose_api.get(ADMIN_SHARDS, auth=("admin", composition.secret("admin_password")), params={"limit": 100})
    servers = {one["practice_id"]: one["server"] for one in answer.json()["result"]["data"]}
    assert (servers[resident.id], servers[newcomer.id]) == ("a", "b")


def test_services_have_a_way_out_only_to_further_servers(composition: Composition) -> None:
    """While there are none, PostgreSQL's neighbours reach nobody outside. The gateway's way is that of its port."""
    for named, services in ("", {"notifier-worker"}), ("b=db-b:5432", {"notifier-worker", *NEAR_SHARDS}):
        whole = json.loads(composition.compose("config", "--format", "json", SHARD_SERVERS=named))
        open_networks = {name for name, one in whole["networks"].items() if not one.get("internal")}
        leading_out = {name for name in SERVICES if open_networks & set(whole["services"][name]["networks"])}
        assert leading_out - {"gateway"} == services


def test_nothing_secret_is_in_the_logs(composition: Composition, resident: Practice) -> None:
    logs = composition.logs()
    for value in ("Resident", resident.password, resident.token, resident.refresh_token):
        assert value not in logs
    for name in ("gateway_secret", "jwt_secret", "shard_secret", "redis_pass", "auth_db_pass", "admin_password"):
        assert composition.secret(name) not in logs, name
