"""Health, keys and documents: what the gateway says about itself and the services, without the internet."""

import re

import pytest
from gateway_stand import Stand, constant, eventually, filled

from gateway import readiness
from gateway.documents import merge
from gateway.routes import ROUTES, Service


def _part(service: Service, **schemas) -> dict:
    """A document as a service's FastAPI would make it, with things in it that mustn't show."""
    paths: dict = {"/internal/secret": {"get": {"responses": {}}}, "/api/v1/hidden": {"get": {"responses": {}}}}
    for route in ROUTES:
        if route.service is service:
            path = route.template.replace("{id}", "{patient_id}")
            content = {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}}
            operation = {
                "summary": f"{route.method} it",
                "responses": {"200": {"description": "ok", "content": content}},
            }
            paths.setdefault(path, {})[route.method.lower()] = operation
    paths["/api/v1/patients"] = {**paths.get("/api/v1/patients", {}), "trace": {"responses": {}}}
    components = {"Answer": {"type": "object", "properties": {"x": {"$ref": "#/components/schemas/Inner"}}}}
    return {"openapi": "3.1.0", "paths": paths, "components": {"schemas": {**components, "Unused": {}, **schemas}}}


PARTS = {
    Service.AUTH: _part(Service.AUTH, Inner={"type": "string"}),
    Service.TENANT: _part(Service.TENANT, Inner={"type": "string"}),
    Service.PATIENT: _part(Service.PATIENT, Inner={"type": "integer"}),
}


def test_the_merged_document_has_exactly_the_routes_of_the_table() -> None:
    document = merge(PARTS)
    found = {
        (method.upper(), re.sub(r"\{.*?\}", "{id}", path)) for path, ops in document["paths"].items() for method in ops
    }
    assert found == {(route.method, filled(route, "{id}")) for route in ROUTES}


def test_every_operation_says_what_it_needs() -> None:
    paths = merge(PARTS)["paths"]
    assert paths["/api/v1/practices/login"]["post"]["security"] == []
    assert paths["/api/v1/patients"]["get"]["security"] == [{"bearer": []}]
    assert paths["/api/v1/admin/practices"]["get"]["security"] == [{"basic": []}]
    assert paths["/api/v1/practices"]["get"]["security"] == [{"bearer": []}, {"basic": []}]


def test_components_that_mean_different_things_get_different_names() -> None:
    """`Answer` is the same text everywhere, but what it refers to isn't."""
    document = merge(PARTS)
    schemas = document["components"]["schemas"]
    assert schemas.keys() == {
        *("auth-service.Answer", "tenant-service.Answer", "patient-service.Answer"),
        *("auth-service.Inner", "tenant-service.Inner", "patient-service.Inner"),
    }
    inner = schemas["patient-service.Answer"]["properties"]["x"]["$ref"]
    assert schemas[inner.rpartition("/")[2]] == {"type": "integer"}
    assert "Unused" not in str(document)
    assert document["components"]["securitySchemes"].keys() == {"bearer", "basic"}


def test_components_that_mean_the_same_stand_once() -> None:
    parts = {service: _part(service, Inner={"type": "string"}) for service in Service}
    assert merge(parts)["components"]["schemas"].keys() == {"Answer", "Inner"}


def test_every_reference_leads_somewhere() -> None:
    document = merge(PARTS)
    for reference in re.findall(r"'\$ref': '#/components/schemas/([^']+)'", str(document)):
        assert reference in document["components"]["schemas"]


def test_the_document_is_served_and_kept(make_stand) -> None:
    stand = make_stand()
    assert stand.client.get("/openapi.json").status_code == 503
    for name, service in (("auth", Service.AUTH), ("tenant", Service.TENANT), ("patient", Service.PATIENT)):
        stand.services[name].answers["GET", "/openapi.json"] = constant(PARTS[service])
    answer = stand.client.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.json() == merge(PARTS)
    stand.stop_service("patient")
    assert stand.client.get("/openapi.json").json() == merge(PARTS)


def test_the_docs_page_needs_no_internet(stand: Stand) -> None:
    page = stand.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) >= 3
    assert "://" not in page.text
    for link in links:
        answer = stand.client.get(link)
        assert (answer.status_code, len(answer.content) > 500) == (200, True)
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_livez_depends_on_nothing(make_stand) -> None:
    stand = make_stand()
    for name in list(stand.services):
        stand.stop_service(name)
    assert stand.client.get("/livez").status_code == 200


@pytest.mark.parametrize(
    ("name", "service"), [("auth", "auth-service"), ("tenant", "tenant-service"), ("patient", "patient-service")]
)
def test_readyz_names_the_service_that_is_missing(make_stand, name: str, service: str) -> None:
    stand = make_stand()
    assert stand.client.get("/readyz").json() == {"status": "ready"}
    stand.services[name].missing = {"database": "down"}
    answer = stand.client.get("/readyz")
    assert (answer.status_code, answer.json()["missing"]) == (503, {service: "not ready"})
    stand.stop_service(name)
    assert stand.client.get("/readyz").json()["missing"] == {service: "does not answer"}
    stand.services[name].missing = {}
    stand.start_service(name)
    eventually(lambda: stand.client.get("/readyz").status_code == 200)


def test_readyz_does_not_wait_for_a_hung_service(make_stand, monkeypatch) -> None:
    stand = make_stand()
    monkeypatch.setattr(readiness, "ASK_TIMEOUT_S", 0.3)
    stand.patient.hangs = True
    answer = stand.client.get("/readyz")
    assert (answer.status_code, answer.json()["missing"]) == (503, {"patient-service": "does not answer"})


def test_the_keys_are_public_and_cacheable(stand: Stand) -> None:
    answer = stand.client.get("/.well-known/jwks.json")
    assert answer.json() == {"keys": [stand.signer.jwk()]}
    assert answer.headers.get_list("cache-control") == ["public, max-age=300"]
    assert '"d"' not in answer.text
