"""The tokens' form: derived keys, stable across restarts and replicas, separate for each purpose."""

import base64
from hashlib import sha256

import jwt
import pytest
from auth_support import GATEWAY_SECRET, JWT_SECRET

from auth_service.exceptions import InvalidRefreshTokenError
from auth_service.tokens import AccessTokens, RefreshTokens
from shared.claims import ALGORITHM, AUDIENCE, ISSUER, REQUIRED, AccessClaims
from shared.ids import new_id

OLD, NEW = JWT_SECRET.encode(), GATEWAY_SECRET.encode()


def issue(tokens: AccessTokens) -> str:
    return tokens.issue(person_id=new_id(), practice_id=new_id(), session_id=new_id(), role="owner")


def test_what_is_issued_can_be_read_by_the_gateways_rules():
    tokens = AccessTokens([OLD], life_s=900)
    (key,) = tokens.key_set()["keys"]
    payload = jwt.decode(
        issue(tokens),
        jwt.PyJWK(key),
        algorithms=[ALGORITHM],
        audience=AUDIENCE,
        issuer=ISSUER,
        options={"require": list(REQUIRED)},
    )
    claims = AccessClaims.from_payload(payload)
    assert claims.expires_at - claims.issued_at == 900


def test_a_secret_always_gives_the_same_key_named_by_its_fingerprint():
    keys = [AccessTokens([OLD], life_s=1).key_set() for _ in range(2)]
    assert keys[0] == keys[1]
    (key,) = keys[0]["keys"]
    public = base64.urlsafe_b64decode(key["x"] + "=")
    assert key["kid"] == sha256(public).hexdigest()[:16]


def test_the_newest_secret_signs_and_all_are_published_in_their_order():
    both, old, new = (AccessTokens(secrets, life_s=1) for secrets in ([NEW, OLD], [OLD], [NEW]))
    assert both.key_set()["keys"] == new.key_set()["keys"] + old.key_set()["keys"]
    assert jwt.get_unverified_header(issue(both))["kid"] == new.key_set()["keys"][0]["kid"]


def test_refresh_tokens_are_the_same_everywhere_and_nobody_elses():
    session_id = new_id()
    token = RefreshTokens([OLD]).write(session_id, 7)
    assert token == RefreshTokens([OLD, NEW]).write(session_id, 7)
    assert RefreshTokens([NEW, OLD]).read(token) == (session_id, 7)
    assert RefreshTokens([NEW, OLD]).write(session_id, 7) != token
    with pytest.raises(InvalidRefreshTokenError):
        RefreshTokens([NEW]).read(token)
