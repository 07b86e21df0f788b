"""The vocabulary of a REST client: calls, practices, patients. Every answer is held against the whole contract's rules.

What is true of *every* answer is asserted here, once; what a single call promises is asserted in its test.
"""

import itertools
import re
import secrets
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx

PASSWORD = "securepassword"
PATIENT = {"name": "Patient A", "age": 30, "mobile": "9876543210"}
PATIENT_KEYS = {"id", "name", "age", "mobile", "is_deleted"}
ERROR_KEYS = {"success", "status", "message", "type", "title", "detail", "instance"}
PATIENTS = "/api/v1/patients"
PRACTICES = "/api/v1/practices"
SIGNUP = "/api/v1/practices/signup"
LOGIN = "/api/v1/practices/login"
REFRESH = "/api/v1/auth/refresh"
LOGOUT = "/api/v1/auth/logout"
ADMIN_PRACTICES = "/api/v1/admin/practices"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_OWN_CACHE_RULE = {"/.well-known/jwks.json"}
_NO_ENVELOPE = {"/readyz", "/livez"}
_numbers = itertools.count(1)


def check_every_answer(response: httpx.Response) -> None:
    """Headers on every answer, and one shape of all errors."""
    response.read()
    path = response.request.url.path
    [request_id] = response.headers.get_list("x-request-id")
    assert _REQUEST_ID.fullmatch(request_id), request_id
    assert response.headers.get_list("x-content-type-options") == ["nosniff"]
    if path not in _OWN_CACHE_RULE:
        assert response.headers.get_list("cache-control") == ["no-store"]
    assert "server" not in response.headers, "the answer names its server"
    if response.is_error and path not in _NO_ENVELOPE and response.request.method != "HEAD":
        check_error(response)


def check_error(response: httpx.Response) -> None:
    """The envelope of errors with RFC 9457's members, and the headers that go with a status."""
    body = response.json()
    assert set(body) == ERROR_KEYS | ({"errors"} if response.status_code == 422 else set()), body
    assert body["success"] is False
    assert body["status"] == response.status_code
    assert body["instance"] == response.headers["x-request-id"]
    assert body["type"].startswith("/errors/")
    assert all(isinstance(body[key], str) and body[key] for key in ("message", "title", "detail"))
    asked_for_problem = "application/problem+json" in response.request.headers.get("accept", "")
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type == ("application/problem+json" if asked_for_problem else "application/json")
    needed = {401: "www-authenticate", 405: "allow", 429: "retry-after", 503: "retry-after"}
    if response.status_code in needed:
        assert response.headers.get(needed[response.status_code]), f"{response.status_code} lacks its header"
    if response.status_code == 422:
        assert body["errors"]
        assert all(set(fault) == {"field", "message"} and fault["message"] for fault in body["errors"])


def assert_error(response: httpx.Response, status: int, kind: str | None = None) -> dict[str, Any]:
    """The answer is this error; `kind` ends its type."""
    assert response.status_code == status, response.text
    check_error(response)
    body: dict[str, Any] = response.json()
    if kind:
        assert body["type"] == f"/errors/{kind}"
    return body


def assert_faults(response: httpx.Response, *fields: str) -> None:
    """The answer is 422 and names exactly these fields."""
    body = assert_error(response, 422, "validation")
    assert {fault["field"] for fault in body["errors"]} == set(fields), body["errors"]


def assert_success(response: httpx.Response, status: int, message: str, *more: str) -> dict[str, Any]:
    """The answer is this success with exactly these members beside the envelope's own."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].partition(";")[0] == "application/json"
    body: dict[str, Any] = response.json()
    assert set(body) == {"success", "status", "message", *more}, body
    assert (body["success"], body["status"], body["message"]) == (True, status, message)
    return body


def without_instance(response: httpx.Response) -> dict[str, Any]:
    """An error's members that may not depend on the single request."""
    return {key: value for key, value in response.json().items() if key != "instance"}


class Api:
    """A client of the gateway. Thread-safe. `source` is the address it calls from."""

    def __init__(self, url: str, *, source: str = "127.0.0.1", timeout_s: float = 30) -> None:
        self.url = url
        self.client = httpx.Client(
            base_url=url,
            transport=httpx.HTTPTransport(local_address=source, limits=httpx.Limits(max_connections=100)),
            timeout=timeout_s,
            event_hooks={"response": [check_every_answer]},
        )

    def close(self) -> None:
        """Ends its connections."""
        self.client.close()

    def call(self, method: str, path: str, *, token: str | None = None, **parts: Any) -> httpx.Response:
        """One call; `parts` are httpx's (json, content, headers, params, auth)."""
        headers = list(httpx.Headers(parts.pop("headers", None)).raw)
        if token is not None:
            headers.append((b"Authorization", f"Bearer {token}".encode()))
        return self.client.request(method, path, headers=headers, **parts)

    def get(self, path: str, **parts: Any) -> httpx.Response:
        """GET."""
        return self.call("GET", path, **parts)

    def post(self, path: str, **parts: Any) -> httpx.Response:
        """POST."""
        return self.call("POST", path, **parts)

    def sign_up(self, **changes: Any) -> httpx.Response:
        """A sign-up of a practice nobody has seen; `changes` replace members of its body."""
        return self.post(SIGNUP, json=new_sign_up() | changes)

    def log_in(self, email: str, password: str = PASSWORD) -> httpx.Response:
        """A log-in."""
        return self.post(LOGIN, json={"email": email, "password": password})


def new_sign_up() -> dict[str, Any]:
    """The body of a sign-up with an e-mail of its own."""
    number = next(_numbers)
    return {
        "name": f"Practice {number}",
        "email": f"p{number}-{secrets.token_hex(4)}@example.com",
        "password": PASSWORD,
    }


def new_uuid() -> str:
    """An id that nothing has."""
    return str(uuid.uuid4())


@dataclass(frozen=True)
class Practice:
    """A practice that signed up and logged in."""

    api: Api = field(repr=False)
    id: str
    name: str
    email: str
    password: str = field(repr=False)
    token: str = field(repr=False)
    refresh_token: str = field(repr=False)

    @classmethod
    def join(cls, api: Api, **changes: Any) -> "Practice":
        """Signs up and logs in."""
        body = new_sign_up() | changes
        answer = api.post(SIGNUP, json=body)
        assert answer.status_code == 201, answer.text
        entered = api.log_in(body["email"], body["password"])
        assert entered.status_code == 200, entered.text
        session = entered.json()
        return cls(
            api, answer.json()["result"]["id"], **body, token=session["token"], refresh_token=session["refresh_token"]
        )

    def call(self, method: str, path: str, **parts: Any) -> httpx.Response:
        """One call with this practice's token."""
        return self.api.call(method, path, token=self.token, **parts)

    def get(self, path: str, **parts: Any) -> httpx.Response:
        """GET."""
        return self.call("GET", path, **parts)

    def add(self, **changes: Any) -> httpx.Response:
        """POST of a patient; `changes` replace members of its body."""
        return self.call("POST", PATIENTS, json=PATIENT | changes)

    def new_patient(self, **changes: Any) -> dict[str, Any]:
        """A patient that was added."""
        answer = self.add(**changes)
        assert answer.status_code == 201, answer.text
        patient: dict[str, Any] = answer.json()["result"]
        return patient

    def patients(self, **query: Any) -> list[dict[str, Any]]:
        """One page of the list."""
        answer = self.get(PATIENTS, params=query)
        assert answer.status_code == 200, answer.text
        page: list[dict[str, Any]] = answer.json()["result"]["data"]
        return page


def patient_path(patient_id: str, deed: str = "") -> str:
    """The address of one patient."""
    return f"{PATIENTS}/{patient_id}{deed}"
