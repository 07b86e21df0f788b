"""Every route of the API document times everybody who may knock: who is let in stands in one table."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from e2e_api import Api, Practice, new_uuid
from e2e_stack import Mailbox

PERSONS = frozenset({"owner", "clinician", "receptionist", "auditor"})
EVERYBODY = PERSONS | {"anonymous", "api-key", "admin"}
TREATING = frozenset({"owner", "clinician", "api-key"})
OWNER, ADMIN = frozenset({"owner"}), frozenset({"admin"})
PASSWORD = "a-persons-own-password"
_TOKEN_LINE = re.compile(r"^[A-Za-z0-9_-]{43}$", re.MULTILINE)

LET_IN = {
    "POST /api/v1/practices/signup": EVERYBODY,
    "POST /api/v1/practices/login": EVERYBODY,
    "POST /api/v1/signup": EVERYBODY,
    "POST /api/v1/login": EVERYBODY,
    "POST /api/v1/auth/refresh": EVERYBODY,
    "POST /api/v1/auth/password/forgot": EVERYBODY,
    "POST /api/v1/auth/password/reset": EVERYBODY,
    "POST /api/v1/auth/email/verify": EVERYBODY,
    "POST /api/v1/staff/invitations/accept": EVERYBODY,
    "POST /api/v1/auth/logout": PERSONS,
    "GET /api/v1/auth/sessions": PERSONS,
    "DELETE /api/v1/auth/sessions": PERSONS,
    "DELETE /api/v1/auth/sessions/{}": PERSONS,
    "POST /api/v1/auth/password/change": PERSONS,
    "POST /api/v1/auth/email/resend": PERSONS,
    "GET /api/v1/auth/totp": PERSONS,
    "POST /api/v1/auth/totp": PERSONS,
    "DELETE /api/v1/auth/totp": PERSONS,
    "POST /api/v1/auth/totp/confirm": PERSONS,
    "POST /api/v1/auth/totp/recovery-codes": PERSONS,
    "GET /api/v1/auth/practices": PERSONS,
    "POST /api/v1/auth/switch": PERSONS,
    "GET /api/v1/practices": PERSONS | ADMIN,
    "GET /api/v1/practices/policy": OWNER,
    "PUT /api/v1/practices/policy": OWNER,
    "GET /api/v1/staff": OWNER,
    "PATCH /api/v1/staff/{}": OWNER,
    "DELETE /api/v1/staff/{}": OWNER,
    "GET /api/v1/staff/invitations": OWNER,
    "POST /api/v1/staff/invitations": OWNER,
    "POST /api/v1/staff/invitations/{}/resend": OWNER,
    "DELETE /api/v1/staff/invitations/{}": OWNER,
    "GET /api/v1/api-keys": OWNER,
    "POST /api/v1/api-keys": OWNER,
    "DELETE /api/v1/api-keys/{}": OWNER,
    "GET /api/v1/audit": frozenset({"owner", "auditor", "api-key", "admin"}),
    "GET /api/v1/patients": PERSONS | {"api-key"},
    "GET /api/v1/patients/{}": PERSONS | {"api-key"},
    "POST /api/v1/patients": TREATING | {"receptionist"},
    "PUT /api/v1/patients/{}": TREATING | {"receptionist"},
    "PATCH /api/v1/patients/{}": TREATING | {"receptionist"},
    "DELETE /api/v1/patients/{}": TREATING,
    "POST /api/v1/patients/{}/restore": TREATING,
    "POST /api/v1/admin/login": ADMIN,
    "POST /api/v1/admin/logout": ADMIN,
    "GET /api/v1/admin/practices": ADMIN,
    "POST /api/v1/admin/practices/{}/suspend": ADMIN,
    "POST /api/v1/admin/practices/{}/resume": ADMIN,
    "GET /api/v1/admin/servers": ADMIN,
    "POST /api/v1/admin/servers": ADMIN,
    "POST /api/v1/admin/servers/{}/drain": ADMIN,
    "POST /api/v1/admin/servers/{}/open": ADMIN,
    "POST /api/v1/admin/servers/{}/evacuate": ADMIN,
    "POST /api/v1/admin/practices/{}/close": ADMIN,
    "POST /api/v1/admin/practices/{}/undo-close": ADMIN,
    "POST /api/v1/admin/practices/{}/export": ADMIN,
    "GET /api/v1/admin/practices/{}/deletion-record": ADMIN,
    "POST /api/v1/admin/practices/{}/move": ADMIN,
    "POST /api/v1/admin/fleet/query": ADMIN,
    "GET /api/v1/admin/operations": ADMIN,
    "POST /api/v1/admin/practices/{}/backup": ADMIN,
    "GET /api/v1/admin/practices/{}/backups": ADMIN,
    "POST /api/v1/admin/backups/restore": ADMIN,
    "GET /api/v1/admin/practices/{}/copies": ADMIN,
    "DELETE /api/v1/admin/practices/{}/copies/{}": ADMIN,
    "POST /api/v1/admin/practices/{}/copies/{}/diff": ADMIN,
    "POST /api/v1/admin/practices/{}/copies/{}/swap": ADMIN,
    "POST /api/v1/admin/practices/{}/copies/{}/take-back": ADMIN,
    "DELETE /api/v1/admin/servers/{}": ADMIN,
    "GET /api/v1/admin/isolation": ADMIN,
    "GET /api/v1/admin/shards": ADMIN,
    "GET /api/v1/admin/shards/status": ADMIN,
    "POST /api/v1/admin/shards/migrate": ADMIN,
    "GET /api/v1/admin/jobs/{}": ADMIN,
}
"""The API key has every permission that a key can have."""

NO_BODY = {"GET", "DELETE"}
ENDS_SESSIONS = {"POST /api/v1/auth/logout", "DELETE /api/v1/auth/sessions", "POST /api/v1/admin/logout"}


def _operations(api: Api) -> set[str]:
    document = api.get("/openapi.json").json()
    return {
        f"{method.upper()} {re.sub(r'{[^}]*}', '{}', path)}"
        for path, operations in document["paths"].items()
        for method in operations
        if method in {"get", "post", "put", "patch", "delete"}
    }


@pytest.fixture(scope="module")
def log_in(api: Api, practice: Practice, mailbox: Mailbox, admin: tuple[str, str]) -> Callable[[str], str | None]:
    """The token of a new session of somebody in the practice; of the key, always the same one."""
    made = practice.call(
        "POST",
        "/api/v1/api-keys",
        json={"name": "All", "permissions": ["patients:read", "patients:write", "patients:delete", "audit:read"]},
    )
    key = made.json()["result"]["key"]
    emails = {}
    for role in sorted(PERSONS):
        emails[role] = f"matrix-{role}-{practice.id[-8:]}@example.com"
        sent = practice.call("POST", "/api/v1/staff/invitations", json={"email": emails[role], "role": role})
        assert sent.status_code == 201, sent.text
        part = mailbox.wait_for(emails[role], timeout_s=15).get_body(("plain",))
        assert part is not None
        [token] = _TOKEN_LINE.findall(part.get_content().replace("\r\n", "\n"))
        body = {"token": token, "name": role, "password": PASSWORD}
        assert api.post("/api/v1/staff/invitations/accept", json=body).status_code == 200

    def token_of(who: str) -> str | None:
        if who in PERSONS:
            return str(api.log_in(emails[who], PASSWORD).json()["token"])
        if who == "admin":
            return str(api.post("/api/v1/admin/login", auth=admin).json()["token"])
        return key if who == "api-key" else None

    return token_of


def test_the_table_has_every_operation_and_no_other(api: Api) -> None:
    assert _operations(api) == set(LET_IN)


@pytest.mark.parametrize("who", sorted(EVERYBODY))
def test_who_is_let_in_where(api: Api, log_in: Callable[[str], str | None], admin: tuple[str, str], who: str) -> None:
    """Let in is whoever isn't told 401 or 403. Bodies are nonsense and ids are nobody's, so little happens."""
    token = log_in(who)
    wrong = {}
    for operation, allowed in LET_IN.items():
        method, path = operation.split(" ")
        parts: dict[str, Any] = {} if method in NO_BODY else {"json": {"nonsense": 1}}
        if operation == "POST /api/v1/admin/login":
            parts |= {"auth": admin} if who == "admin" else {}
        answer = api.call(method, path.replace("{}", new_uuid()), token=None if "auth" in parts else token, **parts)
        if (answer.status_code not in {401, 403}) != (who in allowed):
            wrong[operation] = answer.status_code
        if operation in ENDS_SESSIONS:
            token = log_in(who)
    assert wrong == {}
