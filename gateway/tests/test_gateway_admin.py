"""The admin's password is only taken where it is documented, compared whole, and can't be guessed quickly."""

import base64

import pytest
from gateway_stand import ADMIN, Stand

from gateway.admin import AdminDoor
from gateway.exceptions import AdminThrottledError
from gateway.throttle import LONGEST_PAUSE_S, MAX_ADDRESSES, FailureThrottle
from shared.errors import UnauthenticatedError

PATH = "/api/v1/admin/practices"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def test_the_right_password_opens(stand: Stand) -> None:
    assert stand.client.get(PATH, auth=ADMIN).status_code == 200
    assert stand.client.get("/api/v1/admin/servers", auth=ADMIN).status_code == 200
    assert stand.tenant.calls[0].caller.role == "admin"


@pytest.mark.parametrize(
    "value",
    [
        _basic("platform:wrong-password!")["Authorization"],
        _basic("other:a-long-admin-password")["Authorization"],
        _basic("platform:a-long-admin-passwor")["Authorization"],
        _basic("platform:a-long-admin-password ")["Authorization"],
        _basic("platforma-long-admin-password")["Authorization"],
        _basic("platform")["Authorization"],
        "Basic !!!",
        "Basic " + "A" * 5000,
        "Basic YTpi=YTpi",
    ],
)
def test_everything_else_is_401_with_a_basic_challenge(make_stand, stand: Stand, value: str) -> None:
    stand.client.get(PATH, auth=ADMIN)  # a success forgets earlier failures of this address
    answer = stand.client.get(PATH, headers={"Authorization": value})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="gowebbo admin", charset="UTF-8"'
    assert len(stand.auth.calls) == 1


def test_too_many_failures_are_429_even_for_the_right_password(make_stand) -> None:
    stand = make_stand(admin_failures_per_address=3)
    wrong = _basic("platform:wrong")
    assert [stand.client.get(PATH, headers=wrong).status_code for _ in range(4)] == [401, 401, 401, 429]
    answer = stand.client.get(PATH, auth=ADMIN)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert answer.json()["type"] == "/errors/too-many-requests"
    assert stand.client.get("/api/v1/patients", headers=stand.bearer()).status_code == 200


def test_a_spoofed_address_does_not_escape_the_throttle(make_stand) -> None:
    stand = make_stand(admin_failures_per_address=3)
    statuses = [
        stand.client.get(PATH, headers={**_basic("platform:wrong"), "X-Forwarded-For": f"203.0.113.{n}"}).status_code
        for n in range(5)
    ]
    assert statuses == [401, 401, 401, 429, 429]


def test_a_trusted_proxys_clients_are_throttled_one_by_one(make_stand) -> None:
    stand = make_stand(admin_failures_per_address=1, trusted_proxies="127.0.0.0/8")

    def wrong(client: str) -> int:
        return stand.client.get(PATH, headers={**_basic("platform:x"), "X-Forwarded-For": client}).status_code

    assert [wrong("203.0.113.1"), wrong("203.0.113.1"), wrong("203.0.113.2")] == [401, 429, 401]
    assert [wrong("10.0.0.1, 203.0.113.1"), wrong("9.9.9.9, 203.0.113.1")] == [429, 429]


def test_unicode_passwords_work() -> None:
    door = AdminDoor("admin", "pässwörd-пароль-密码", FailureThrottle(5))
    assert door.enter(base64.b64encode("admin:pässwörd-пароль-密码".encode()), "1.2.3.4").role == "admin"


def test_the_pause_doubles_to_a_quarter_of_an_hour_and_ends() -> None:
    clock = Clock()
    throttle = FailureThrottle(3, clock=clock)
    pauses = []
    for _ in range(10):
        throttle.failed("1.2.3.4")
        pauses.append(throttle.wait_s("1.2.3.4"))
        clock.now += pauses[-1]
    assert pauses[:6] == [0, 0, 30, 60, 120, 240]
    assert max(pauses) == pauses[-1] == LONGEST_PAUSE_S
    assert throttle.wait_s("1.2.3.4") == 0
    assert throttle.wait_s("1.2.3.5") == 0


def test_old_failures_are_forgotten_and_a_success_forgets_all() -> None:
    clock = Clock()
    throttle = FailureThrottle(2, clock=clock)
    throttle.failed("a")
    clock.now += 601
    throttle.failed("a")
    assert throttle.wait_s("a") == 0
    throttle.succeeded("a")
    throttle.failed("a")
    assert throttle.wait_s("a") == 0


def test_an_ipv6_network_counts_as_one_address() -> None:
    throttle = FailureThrottle(2)
    throttle.failed("2001:db8::1")
    throttle.failed("2001:db8::ffff:2")
    assert throttle.wait_s("2001:db8::3") > 0
    assert throttle.wait_s("2001:db8:1::3") == 0


def test_addresses_are_bounded() -> None:
    throttle = FailureThrottle(1)
    for number in range(MAX_ADDRESSES + 50):
        throttle.failed(f"address-{number}")
    assert len(throttle._failures) == MAX_ADDRESSES


def test_a_paused_address_computes_nothing() -> None:
    door = AdminDoor("admin", "a-long-password", FailureThrottle(1))
    with pytest.raises(UnauthenticatedError):
        door.enter(b"YTpi", "1.2.3.4")
    with pytest.raises(AdminThrottledError):
        door.enter(b"YTpi", "1.2.3.4")
