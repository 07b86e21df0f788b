"""Nobody of a suspended practice is let in on any route; its neighbours and its tokens are left alone."""

import uuid

import pytest
from gateway_stand import ADMIN, SHARD, Stand, eventually, filled

from gateway.authentication import Authenticator
from gateway.routes import ROUTES, Access

pytestmark = pytest.mark.both_ways

PATIENTS = "/api/v1/patients"
OPEN_TO_BEARERS = [route for route in ROUTES if route.access in {Access.BEARER, Access.BEARER_OR_ADMIN}]


class Clinic:
    """A practice that no other test knows, with somebody in it who is logged in."""

    def __init__(self, stand: Stand) -> None:
        self.id = str(uuid.uuid4())
        self.headers = stand.bearer(practice=self.id, sid=str(uuid.uuid4()))
        self._stand = stand
        stand.shards[self.id] = SHARD

    def call(self, method: str = "GET", path: str = PATIENTS):
        return self._stand.client.request(method, path, headers=self.headers)

    def suspend(self) -> None:
        self._stand.suspensions.append(("practice-suspended", self.id))
        eventually(lambda: self.id in authenticator(self._stand)._revocations.suspended, within_s=5)

    def resume(self) -> None:
        self._stand.suspensions.append(("practice-resumed", self.id))
        eventually(lambda: self.id not in authenticator(self._stand)._revocations.suspended, within_s=5)


@pytest.fixture
def clinic(stand: Stand) -> Clinic:
    return Clinic(stand)


def authenticator(stand: Stand) -> Authenticator:
    return stand.gateway.app._forwarder._authenticator


def assert_suspended(answer) -> None:
    document = answer.json()
    assert (answer.status_code, document["type"]) == (403, "/errors/practice-suspended")
    assert "www-authenticate" not in answer.headers


def test_a_practice_that_has_called_before_is_refused_and_let_in_again_with_the_same_token(
    stand: Stand, clinic: Clinic
) -> None:
    """The remembered caller must not be good enough."""
    assert [clinic.call().status_code for _ in range(2)] == [200, 200]
    clinic.suspend()
    before = len(stand.patient.calls)
    assert_suspended(clinic.call())
    assert len(stand.patient.calls) == before, "the service isn't called"
    clinic.resume()
    assert clinic.call().status_code == 200


def test_a_practice_that_has_never_called_before_is_refused(stand: Stand, clinic: Clinic) -> None:
    clinic.suspend()
    assert_suspended(clinic.call())
    assert not [path for path in stand.tenant.seen if path.endswith(clinic.id)], "not even its place is asked for"


def test_every_route_that_takes_a_token_refuses_it(stand: Stand, clinic: Clinic, subtests) -> None:
    clinic.suspend()
    for route in OPEN_TO_BEARERS:
        with subtests.test(method=route.method, path=route.template):
            assert_suspended(clinic.call(route.method, filled(route, str(uuid.uuid4()))))
    assert not any(service.calls for service in stand.services.values())


def test_neighbours_and_the_admin_notice_nothing(stand: Stand, clinic: Clinic) -> None:
    neighbour = Clinic(stand)
    clinic.suspend()
    assert neighbour.call().status_code == 200
    assert stand.client.get("/api/v1/practices", auth=ADMIN).status_code == 200
    assert stand.client.post(f"/api/v1/admin/practices/{clinic.id}/resume", auth=ADMIN).status_code == 200


def test_a_bad_token_is_still_401(stand: Stand, clinic: Clinic) -> None:
    clinic.suspend()
    for token in (stand.bearer(practice=clinic.id, exp=1), {"Authorization": "Bearer x"}):
        assert stand.client.get(PATIENTS, headers=token).status_code == 401


def test_practices_suspended_before_the_start_are_known_when_it_is_ready(make_stand) -> None:
    """Loaded before /readyz is 200, which the stand waits for."""
    practice_id = str(uuid.uuid4())
    stand = make_stand(suspended_at_start=[practice_id])
    assert_suspended(stand.client.get(PATIENTS, headers=stand.bearer(practice=practice_id)))
    assert stand.client.get(PATIENTS, headers=stand.bearer()).status_code == 200


def test_what_is_known_stays_while_auth_service_is_away(make_stand) -> None:
    stand = make_stand()
    clinic = Clinic(stand)
    clinic.suspend()
    stand.stop_service("auth")
    feed = authenticator(stand)._sessions_feed
    eventually(lambda: feed._failing)
    assert_suspended(clinic.call())
    assert stand.client.get(PATIENTS, headers=stand.bearer()).status_code == 200
    stand.suspensions.append(("practice-resumed", clinic.id))
    stand.start_service("auth")
    eventually(lambda: clinic.call().status_code == 200)


def test_a_list_that_was_read_anew_forgets_nobody_who_is_suspended(make_stand) -> None:
    stand = make_stand()
    clinic, other = Clinic(stand), Clinic(stand)
    clinic.suspend()
    other.suspend()
    stand.suspensions = [("practice-suspended", clinic.id)]
    feed = authenticator(stand)._sessions_feed
    loaded_at, feed._reload_s = feed._loaded_at, 0.0
    eventually(lambda: feed._loaded_at > loaded_at)
    assert_suspended(clinic.call())
    assert other.call().status_code == 200
