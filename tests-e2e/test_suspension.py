"""An operator suspends a practice and resumes it: refused within seconds by every gateway, with no loss to anybody.

One stack with two gateways; the tests follow each other as the operator's deeds do.
"""

from collections.abc import Iterator

import httpx
import pytest
from e2e_api import (
    ADMIN_PRACTICES,
    LOGOUT,
    PATIENT,
    PATIENTS,
    PRACTICES,
    REFRESH,
    Api,
    Practice,
    assert_error,
    new_uuid,
    patient_path,
)
from e2e_stack import EmbeddedStack, StackFactory, eventually, kill_and_wait
from e2e_traffic import Reading, read_all

WITHIN_S = 5
"""Contract: by then every gateway knows."""
ADMIN = ("the-admin", "a-password-of-the-admin")


@pytest.fixture(scope="module")
def stack(new_stack: StackFactory) -> EmbeddedStack:
    """The stack."""
    return new_stack(GATEWAY_PROCESSES="2", ADMIN_USER_NAME=ADMIN[0], ADMIN_PASSWORD=ADMIN[1]).start()


@pytest.fixture(scope="module")
def api(stack: EmbeddedStack) -> Iterator[Api]:
    """A client of it."""
    client = Api(stack.url)
    yield client
    client.close()


@pytest.fixture(scope="module")
def practice(api: Api) -> Practice:
    """The one that is suspended."""
    return Practice.join(api)


@pytest.fixture(scope="module")
def patient_id(practice: Practice) -> str:
    """A patient of it."""
    return str(practice.new_patient()["id"])


@pytest.fixture(scope="module")
def neighbour(api: Api) -> Practice:
    """Another one, which must notice nothing."""
    return Practice.join(api)


def wait_for_every_gateway(practice: Practice, status: int) -> None:
    """Waits until twenty reads, each on a connection of its own, are answered with this status."""
    eventually(lambda: set(read_all([practice] * 4)) == {status}, f"{status} everywhere", timeout_s=WITHIN_S)


def every_call(practice: Practice, patient_id: str) -> list[httpx.Response]:
    """The answers to all that a practice can call with its token."""
    path = patient_path(patient_id)
    return [
        practice.get(PATIENTS),
        practice.add(),
        practice.get(path),
        practice.call("PUT", path, json=PATIENT),
        practice.call("PATCH", path, json={"age": 31}),
        practice.call("DELETE", path),
        practice.call("POST", patient_path(patient_id, "/restore")),
        practice.get(PRACTICES),
        practice.call("POST", LOGOUT),
    ]


def assert_shut_out(practice: Practice, patient_id: str) -> None:
    """Whatever it does, it is told that it is suspended; a stranger who guesses passwords is told nothing."""
    for answer in every_call(practice, patient_id):
        assert_error(answer, 403, "practice-suspended")
    asked_for = practice.get(PATIENTS, headers={"Accept": "application/problem+json"})
    assert_error(asked_for, 403, "practice-suspended")
    assert_error(practice.api.log_in(practice.email), 403, "practice-suspended")
    assert_error(practice.api.log_in(practice.email, "wrong-password"), 401)
    refreshed = practice.api.post(REFRESH, json={"refresh_token": practice.refresh_token})
    assert_error(refreshed, 403, "practice-suspended")


def test_a_suspended_practice_is_refused_everywhere_and_its_neighbour_is_not(
    stack: EmbeddedStack, practice: Practice, patient_id: str, neighbour: Practice
) -> None:
    assert set(read_all([practice, neighbour])) == {200}
    with Reading([neighbour]) as unaffected:
        done = stack.command_json("practices", "suspend", practice.id)
        assert done == {"practice": practice.id, "status": "suspended"}
        wait_for_every_gateway(practice, 403)
        assert_shut_out(practice, patient_id)
        assert [neighbour.add().status_code for _ in range(3)] == [201] * 3
        unaffected.wait_for_more(10)
    assert set(unaffected.seen) == {200}
    listed = {one["id"]: one["status"] for one in stack.command_json("practices", "list")}
    assert listed == {practice.id: "suspended", neighbour.id: "active"}


def test_suspending_again_succeeds(stack: EmbeddedStack, practice: Practice) -> None:
    again = stack.command("practices", "suspend", practice.id, "--yes")
    assert again.returncode == 0
    assert practice.id in again.stdout


@pytest.mark.parametrize("number", [0, 1])
def test_a_gateway_that_was_killed_still_refuses(
    stack: EmbeddedStack, practice: Practice, neighbour: Practice, number: int
) -> None:
    kill_and_wait(stack, "gateway", number)
    stack.wait_until_ready(timeout_s=30)
    assert set(read_all([practice] * 4)) == {403}
    assert set(read_all([neighbour])) == {200}


def test_the_whole_stack_started_anew_still_refuses(
    stack: EmbeddedStack, practice: Practice, patient_id: str, neighbour: Practice
) -> None:
    assert stack.stop() == 0
    stack.start()
    assert set(read_all([practice] * 4)) == {403}
    assert_shut_out(practice, patient_id)
    assert set(read_all([neighbour])) == {200}


def test_a_resumed_practice_goes_on_with_the_tokens_and_the_data_that_it_had(
    stack: EmbeddedStack, api: Api, practice: Practice, patient_id: str, neighbour: Practice
) -> None:
    with Reading([neighbour]) as unaffected:
        done = stack.command_json("practices", "resume", practice.id)
        assert done == {"practice": practice.id, "status": "active"}
        wait_for_every_gateway(practice, 200)
        unaffected.wait_for_more(10)
    assert set(unaffected.seen) == {200}
    [patient] = practice.patients()
    assert (patient["id"], patient["age"]) == (patient_id, PATIENT["age"]), "nothing went through meanwhile"
    assert api.post(REFRESH, json={"refresh_token": practice.refresh_token}).status_code == 200
    assert api.log_in(practice.email).status_code == 200
    assert [answer.status_code for answer in every_call(practice, patient_id)] == [
        200, 201, 200, 200, 200, 200, 200, 200, 200,
    ]  # fmt: skip
    assert stack.command("practices", "resume", practice.id).returncode == 0, "again"


@pytest.mark.parametrize("deed", ["suspend", "resume"])
def test_a_command_that_can_not_be_done_says_why(stack: EmbeddedStack, deed: str) -> None:
    unknown = stack.command("practices", deed, new_uuid(), "--json")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "404: There is no such practice." in unknown.stderr
    nonsense = stack.command("practices", deed, "the-practice", "--json")
    assert (nonsense.returncode != 0, nonsense.stdout) == (True, "")
    assert "valid UUID" in nonsense.stderr


@pytest.mark.parametrize("deed", ["suspend", "resume"])
def test_the_admin_alone_may_do_it(api: Api, neighbour: Practice, deed: str) -> None:
    path = f"{ADMIN_PRACTICES}/{neighbour.id}/{deed}"
    for answer in (api.post(path), api.post(path, auth=(ADMIN[0], "wrong-password")), neighbour.call("POST", path)):
        assert_error(answer, 401)
    assert neighbour.get(PATIENTS).status_code == 200
    assert_error(api.post(f"{ADMIN_PRACTICES}/{new_uuid()}/{deed}", auth=ADMIN), 404, "unknown-practice")
    assert_error(api.call("GET", path, auth=ADMIN), 405)
