"""Health, keys and documents, readable without credentials and without the internet."""

import re
from typing import Any

import pytest
from e2e_api import Api

ROUTES = {
    ("/api/v1/practices/signup", "post"),
    ("/api/v1/practices/login", "post"),
    ("/api/v1/practices", "get"),
    ("/api/v1/patients", "post"),
    ("/api/v1/patients", "get"),
    ("/api/v1/patients/{}", "get"),
    ("/api/v1/patients/{}", "put"),
    ("/api/v1/patients/{}", "patch"),
    ("/api/v1/patients/{}", "delete"),
    ("/api/v1/patients/{}/restore", "post"),
    ("/api/v1/signup", "post"),
    ("/api/v1/login", "post"),
    ("/api/v1/admin/practices", "get"),
    ("/api/v1/admin/practices/{}/suspend", "post"),
    ("/api/v1/admin/practices/{}/resume", "post"),
    ("/api/v1/auth/refresh", "post"),
    ("/api/v1/auth/logout", "post"),
    ("/api/v1/auth/sessions", "get"),
    ("/api/v1/auth/sessions/{}", "delete"),
    ("/api/v1/auth/password/forgot", "post"),
    ("/api/v1/auth/password/reset", "post"),
    ("/api/v1/auth/password/change", "post"),
    ("/api/v1/auth/email/verify", "post"),
    ("/api/v1/auth/totp", "post"),
    ("/api/v1/auth/totp/confirm", "post"),
    ("/api/v1/auth/totp", "delete"),
    ("/api/v1/auth/switch", "post"),
    ("/api/v1/staff/invitations", "post"),
    ("/api/v1/staff/invitations", "get"),
    ("/api/v1/staff/invitations/{}", "delete"),
    ("/api/v1/staff/invitations/accept", "post"),
    ("/api/v1/staff", "get"),
    ("/api/v1/staff/{}", "patch"),
    ("/api/v1/staff/{}", "delete"),
    ("/api/v1/api-keys", "post"),
    ("/api/v1/api-keys", "get"),
    ("/api/v1/api-keys/{}", "delete"),
    ("/api/v1/audit", "get"),
}
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def document(api: Api) -> dict[str, Any]:
    """The merged API document."""
    answer = api.get("/openapi.json")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    whole: dict[str, Any] = answer.json()
    return whole


def _operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (re.sub(r"\{[^}]*\}", "{}", path), method): operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method in METHODS
    }


def test_the_document_covers_every_route_of_the_contract(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.")
    assert set(_operations(document)) >= ROUTES


def test_the_document_shows_nothing_internal(document: dict[str, Any]) -> None:
    assert not [path for path in document["paths"] if not path.startswith("/api/v1/")]


def test_every_operation_says_what_it_does_and_what_it_answers(document: dict[str, Any]) -> None:
    operations = _operations(document)
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(ids) == len(set(ids))
    for where, operation in operations.items():
        assert operation.get("summary"), where
        assert operation.get("description"), where
        assert any(status.startswith("2") for status in operation["responses"]), where
        assert any(status.startswith("4") for status in operation["responses"]), where
    for path, method in {("/api/v1/practices/signup", "post"), ("/api/v1/patients", "post")}:
        assert "201" in operations[path, method]["responses"]
        assert "requestBody" in operations[path, method]


def test_protected_operations_name_their_credentials(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    bearer = {name for name, scheme in schemes.items() if scheme.get("scheme") == "bearer"}
    basic = {name for name, scheme in schemes.items() if scheme.get("scheme") == "basic"}
    operations = _operations(document)

    def named(path: str, method: str) -> set[str]:
        operation = operations[path, method]
        return {name for one in operation.get("security", document.get("security", [])) for name in one}

    for path, method in ROUTES:
        if "patients" in path or path.endswith("logout"):
            assert named(path, method) <= bearer, path
            assert named(path, method), path
        elif path.endswith(("signup", "login", "refresh")):
            assert not named(path, method), path
    assert named("/api/v1/admin/practices", "get") & basic
    assert named("/api/v1/practices", "get") & basic
    assert named("/api/v1/practices", "get") & bearer


def test_every_reference_of_the_document_resolves(document: dict[str, Any]) -> None:
    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            here = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
            return here + [one for value in part.values() for one in references(value)]
        return [one for value in part for one in references(value)] if isinstance(part, list) else []

    for reference in set(references(document)):
        found: Any = document
        for name in reference.removeprefix("#/").split("/"):
            found = found[name.replace("~1", "/").replace("~0", "~")]
        assert found


def test_the_documentation_page_needs_no_internet(api: Api) -> None:
    page = api.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)["']""", page.text)
    scripts = [source for source in sources if source.partition("?")[0].endswith(".js")]
    assert scripts
    assert not re.findall(r"""["'(](?:https?:)?//[^"')]+""", page.text)
    for source in sources:
        asset = api.get(source)
        assert asset.status_code == 200, source
        assert asset.content
    assert "/openapi.json" in page.text


def test_health_needs_no_credentials(api: Api) -> None:
    for path in ("/livez", "/readyz"):
        answer = api.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("application/json")


def test_the_jwks_shows_public_keys_only(api: Api) -> None:
    answer = api.get("/.well-known/jwks.json")
    assert answer.status_code == 200
    for key in answer.json()["keys"]:
        assert (key["kty"], key["crv"]) == ("OKP", "Ed25519")
        assert key["kid"]
        assert "d" not in key


def test_metrics_do_not_pass_the_gateway(api: Api) -> None:
    assert api.get("/metrics").status_code == 404
