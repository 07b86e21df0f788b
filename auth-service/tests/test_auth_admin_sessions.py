"""The platform's admin works with a token of its own audience."""

import jwt
import pytest
from auth_support import ADMIN, ANYBODY, member

from auth_service.tokens import ADMIN_LIFE_S
from shared.context import Caller
from shared.ids import new_id


def test_the_admin_gets_a_short_token_with_its_own_audience(client, central):
    answer = client.call("POST", "/api/v1/admin/login", caller=ADMIN)
    assert answer.json()["expires_in"] == ADMIN_LIFE_S
    assert "refresh_token" not in answer.json()
    claims = jwt.decode(answer.json()["token"], options={"verify_signature": False})
    assert (claims["aud"], claims["sub"], claims["role"], claims["practice"]) == ("gowebbo-admin", "admin", "admin", "")
    assert claims["exp"] - claims["iat"] == ADMIN_LIFE_S
    session = Caller(role="admin", user_id="admin", session_id=claims["sid"])
    assert client.call("POST", "/api/v1/admin/logout", caller=session).status_code == 200
    assert central.rows("SELECT kind, session_id::text FROM auth.changes") == [("session-revoked", claims["sid"])]
    entries = central.rows("SELECT actor, action, target FROM auth.audit ORDER BY id")
    assert entries == [("admin", "session.logged-in", claims["sid"]), ("admin", "session.logged-out", claims["sid"])]


def test_without_a_token_there_is_nothing_to_end(client):
    assert client.call("POST", "/api/v1/admin/logout", caller=ADMIN).status_code == 401


@pytest.mark.parametrize("caller", [ANYBODY, member(str(new_id())), Caller(role="api-key", scope="audit:read")])
@pytest.mark.parametrize("deed", ["login", "logout"])
def test_nobody_else_gets_one(client, caller, deed):
    assert client.call("POST", f"/api/v1/admin/{deed}", caller=caller).status_code == 403
