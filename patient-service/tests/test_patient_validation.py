"""What a body may hold. Nothing is stored of a body that is refused, and no answer repeats a value."""

from typing import Any

import pytest
from patient_practices import JOHN, PatientClient, Practice

pytestmark = pytest.mark.anyio

SECRET = "Sensitive Person"
REFUSED: list[tuple[str, Any]] = [
    ("age", "30"),
    ("age", True),
    ("age", 3.0),
    ("age", -1),
    ("age", 151),
    ("age", 10**30),
    ("age", None),
    ("name", ""),
    ("name", "   "),
    ("name", "x" * 201),
    ("name", f"{SECRET}\x00"),
    ("name", f"{SECRET}\nBcc: x"),
    ("name", f"{SECRET}\u2028"),
    ("name", "\ud800"),
    ("name", 5),
    ("name", None),
    ("name", [SECRET]),
    ("mobile", "1234"),
    ("mobile", "+ - ( ) 12"),
    ("mobile", "1" * 21),
    ("mobile", "98765x43210"),
    ("mobile", "٩٨٧٦٥٤٣٢١٠"),
    ("mobile", "9876543210\n"),
    ("mobile", "12345\x00"),
    ("mobile", "\ud800"),
    ("mobile", 9876543210),
    ("mobile", None),
    ("id", "018f0000-0000-7000-8000-000000000000"),
    ("is_deleted", 1),
    ("practice_id", "x"),
    ("role", "admin"),
    ("version", 9),
    ("created_at", "2026-01-01T00:00:00Z"),
    ("\ud800", 1),
    ("__proto__", {}),
]


@pytest.mark.parametrize(
    ("field", "value"), REFUSED, ids=[f"{field}-{number}" for number, (field, _) in enumerate(REFUSED)]
)
async def test_a_faulty_value_is_refused_and_nothing_is_stored(
    service: PatientClient, practice: Practice, field: str, value: Any
):
    patient = await service.add(practice)
    for method, path, body in (
        ("POST", "", JOHN | {field: value}),
        ("PUT", f"/{patient['id']}", JOHN | {field: value}),
        ("PATCH", f"/{patient['id']}", {field: value}),
    ):
        answer = await service.call(practice, method, path, json=body)
        assert answer.status_code == 422, (method, answer.text)
        assert answer.json()["errors"], method
        assert SECRET not in answer.text
    assert (await service.call(practice, "GET")).json()["result"]["data"] == [patient]


async def test_every_fault_is_named(service: PatientClient, practice: Practice):
    answer = await service.call(practice, "POST", json={"age": "3", "mobile": "x", "role": "admin"})
    assert {fault["field"] for fault in answer.json()["errors"]} == {"name", "age", "mobile", "role"}


@pytest.mark.parametrize(
    "accepted",
    [
        {"age": 0},
        {"age": 150},
        {"name": "X"},
        {"name": "ä" * 200},
        {"name": " " * 300 + "padded" + " " * 300},
        {"mobile": "12345"},
        {"mobile": "+91 (98765) 43-210"},
        {"mobile": "1" * 20},
        {"mobile": " 98765 "},
    ],
)
async def test_values_at_the_edge_are_accepted(service: PatientClient, practice: Practice, accepted: dict[str, Any]):
    patient = await service.add(practice, **accepted)
    kept = {name: value.strip() if name == "name" else value for name, value in accepted.items()}
    assert patient | kept == patient


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"text"', b"\xff", b"[" * 100_000, b'{"age":' + b"9" * 5000 + b"}", b"NaN"]
)
async def test_a_body_that_is_no_object_is_refused(service: PatientClient, practice: Practice, body: bytes):
    answer = await service.call(practice, "POST", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}, answer.text


async def test_a_body_that_is_not_declared_as_json_is_refused(service: PatientClient, practice: Practice):
    answer = await service.call(practice, "POST", content=b"name=x", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    merge = {"Content-Type": "application/merge-patch+json"}
    assert (await service.call(practice, "POST", content=b"{}", headers=merge)).status_code == 415
