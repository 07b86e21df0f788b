"""API keys at the gateway: asked for by digest, remembered for a minute, refused once revoked."""

import asyncio
from typing import Any

import pytest

from gateway.api_keys import ASK_AGAIN_S, REFUSED_S, STALE_AFTER_S, ApiKeys
from gateway.asking import NoAnswerError
from gateway.exceptions import InvalidTokenError
from gateway.revocations import Revocations
from shared.api_keys import digest_of, is_well_formed, new_key
from shared.errors import UnavailableError

KEY = new_key()
GOOD = {
    "id": "0199aaaa-0000-7000-8000-000000000001",
    "practice_id": "0199aaaa-0000-7000-8000-000000000002",
    "permissions": ["patients:read", "audit:read"],
    "created_at": 1_000,
    "expires_at": None,
}


class Auth:
    """auth-service as the gateway asks it."""

    def __init__(self, status: int = 200, answer: Any = GOOD) -> None:
        self.status, self.answer, self.is_away = status, answer, False
        self.asked: list[str] = []

    async def get(self, target: str, *, timeout_s: float) -> tuple[int, Any]:
        assert timeout_s
        self.asked.append(target)
        await asyncio.sleep(0)
        if self.is_away:
            raise NoAnswerError
        return self.status, self.answer


class Scene:
    def __init__(self, auth: Auth) -> None:
        self.auth, self.revocations, self.now = auth, Revocations(), 2_000.0
        self.keys = ApiKeys(auth, self.revocations, clock=lambda: self.now)  # type: ignore[arg-type]

    def verify(self, key: str = KEY):
        return asyncio.run(self.keys.verify(key.encode()))

    def recall(self, key: str = KEY):
        return self.keys.recall(key.encode())


@pytest.fixture
def scene() -> Scene:
    return Scene(Auth())


def test_a_key_is_asked_for_by_its_digest_once_a_minute(scene: Scene) -> None:
    claims = scene.verify()
    assert (claims.role, claims.scope, claims.person_id) == ("api-key", "patients:read audit:read", "")
    assert (claims.practice_id, claims.session_id) == (GOOD["practice_id"], GOOD["id"])
    assert scene.recall() == claims
    scene.verify()
    assert scene.auth.asked == [f"/internal/api-keys/{digest_of(KEY).hex()}"]
    assert KEY not in scene.auth.asked[0]
    scene.now += ASK_AGAIN_S
    assert scene.recall() is None
    scene.verify()
    assert len(scene.auth.asked) == 2


def test_calls_at_once_ask_once(scene: Scene) -> None:
    async def several() -> None:
        await asyncio.gather(*(scene.keys.verify(KEY.encode()) for _ in range(20)))

    asyncio.run(several())
    assert len(scene.auth.asked) == 1


def test_a_revoked_key_is_refused_at_once(scene: Scene) -> None:
    scene.verify()
    scene.revocations.apply([{"kind": "session-revoked", "session_id": GOOD["id"]}])
    assert scene.recall() is None
    with pytest.raises(InvalidTokenError):
        scene.verify()


def test_a_key_is_good_until_it_expires(scene: Scene) -> None:
    scene.auth.answer = GOOD | {"expires_at": 2_030}
    scene.verify()
    scene.now = 2_030.0
    assert scene.recall() is None
    with pytest.raises(InvalidTokenError, match="expired"):
        scene.verify()


def test_an_unknown_key_is_remembered_for_a_while(scene: Scene) -> None:
    scene.auth.status, scene.auth.answer = 404, None
    for _ in range(5):
        with pytest.raises(InvalidTokenError):
            scene.verify()
    assert len(scene.auth.asked) == 1
    scene.now += REFUSED_S
    scene.auth.status, scene.auth.answer = 200, GOOD
    assert scene.verify()


def test_what_is_no_key_is_refused_without_a_question(scene: Scene) -> None:
    other_digit = "0" if KEY[-1] != "0" else "1"
    for key in (
        "gwk_",
        "gwk_x",
        KEY[:-1],
        KEY + "0",
        KEY[:-1] + other_digit,
        KEY.upper(),
        "gwk_é" + KEY[5:],
        " " + KEY,
    ):
        assert not is_well_formed(key)
        with pytest.raises(InvalidTokenError):
            scene.verify(key)
    assert scene.auth.asked == []


def test_while_nobody_can_be_asked_a_known_key_goes_on_for_a_while(scene: Scene) -> None:
    scene.verify()
    scene.auth.is_away = True
    with pytest.raises(UnavailableError):
        scene.verify(new_key())
    scene.now += ASK_AGAIN_S
    assert scene.verify()
    scene.now += STALE_AFTER_S
    with pytest.raises(UnavailableError):
        scene.verify()


@pytest.mark.parametrize(
    "answer", [None, [], {}, GOOD | {"permissions": []}, GOOD | {"expires_at": "x"}, GOOD | {"created_at": None}]
)
def test_a_nonsensical_answer_lets_nobody_in(scene: Scene, answer: Any) -> None:
    scene.auth.answer = answer
    with pytest.raises(UnavailableError):
        scene.verify()


def test_made_up_keys_push_out_no_good_one(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.api_keys.MAX_ENTRIES", 3)
    scene.verify()
    scene.auth.status, scene.auth.answer = 404, None
    for _ in range(5):
        with pytest.raises(InvalidTokenError):
            scene.verify(new_key())
    assert scene.recall() is not None
    assert len(scene.keys._refused) == 3


def test_the_memory_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.api_keys.MAX_ENTRIES", 3)
    keys = [new_key() for _ in range(5)]
    for key in keys:
        scene.verify(key)
    assert [scene.recall(key) is not None for key in keys] == [False, False, True, True, True]
    assert not scene.keys._asked
