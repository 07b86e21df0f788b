"""The API's rows about patients: each success, each error, to the letter."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from e2e_api import (
    PATIENT,
    PATIENT_KEYS,
    PATIENTS,
    Practice,
    assert_error,
    assert_faults,
    assert_success,
    new_uuid,
    patient_path,
    without_instance,
)
from e2e_stack import EmbeddedStack, rows, with_database

ADDED = "Patient added successfully!"
FETCHED = "Patient fetched successfully!"
LISTED = "Patients fetched successfully!"
UPDATED = "Patient updated successfully!"
DELETED = "Patient deleted successfully!"
RESTORED = "Patient restored successfully!"
MERGE_PATCH = "application/merge-patch+json"

# Every value that a client might send by mistake or malice, and the field that must be named.
BAD_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name"),
    ({"name": "   "}, "name"),
    ({"name": "x" * 201}, "name"),
    ({"name": None}, "name"),
    ({"name": 3}, "name"),
    ({"name": True}, "name"),
    ({"name": ["x"]}, "name"),
    ({"name": {"a": 1}}, "name"),
    ({"name": "a\u0000b"}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"age": "3"}, "age"),
    ({"age": True}, "age"),
    ({"age": 3.0}, "age"),
    ({"age": 3.5}, "age"),
    ({"age": None}, "age"),
    ({"age": -1}, "age"),
    ({"age": 151}, "age"),
    ({"age": 2**31}, "age"),
    ({"age": 2**63}, "age"),
    ({"age": 10**100}, "age"),
    ({"age": []}, "age"),
    ({"mobile": "1234"}, "mobile"),
    ({"mobile": "1" * 21}, "mobile"),
    ({"mobile": "98765abc10"}, "mobile"),
    ({"mobile": "98765#4321"}, "mobile"),
    ({"mobile": "     "}, "mobile"),
    ({"mobile": "+-()+-()"}, "mobile"),
    ({"mobile": ""}, "mobile"),
    ({"mobile": None}, "mobile"),
    ({"mobile": 9876543210}, "mobile"),
    ({"mobile": "98765\n43210"}, "mobile"),
    ({"id": "018f0000-0000-7000-8000-000000000000"}, "id"),
    ({"is_deleted": 1}, "is_deleted"),
    ({"is_deleted": 0}, "is_deleted"),
    ({"role": "owner"}, "role"),
    ({"practice_id": "x"}, "practice_id"),
    ({"version": 1}, "version"),
    ({"created_at": "2020-01-01T00:00:00Z"}, "created_at"),
    ({"Name": "x"}, "Name"),
]


def _name_of(value: object) -> str:
    return repr(value)[:50]


def _send(practice: Practice, method: str, path: str, content: bytes, media_type: str | None) -> Any:
    headers = {"Content-Type": media_type} if media_type else {}
    return practice.call(method, path, content=content, headers=headers)


# create


def test_a_patient_is_added(practice: Practice) -> None:
    created = assert_success(practice.add(), 201, ADDED, "result")["result"]
    assert set(created) >= PATIENT_KEYS
    assert {**PATIENT, "is_deleted": 0}.items() <= created.items()
    assert type(created["is_deleted"]) is int
    assert type(created["age"]) is int


@pytest.mark.parametrize(
    "change",
    [
        {"name": "x"},
        {"name": "x" * 200},
        {"name": 'Ƶöë 患者 🤒 O\'Brien \\ "q" </script>'},
        {"name": "'); DROP TABLE patients;--"},
        {"name": "%s %(name)s {} $1 :name"},
        {"age": 0},
        {"age": 150},
        {"mobile": "12345"},
        {"mobile": "+49 (0) 30-123456789"},
        {"mobile": "(02) 9876-5432"},
    ],
    ids=_name_of,
)
def test_a_patient_may_have(practice: Practice, change: dict[str, Any]) -> None:
    created = assert_success(practice.add(**change), 201, ADDED, "result")["result"]
    shown = practice.get(patient_path(created["id"])).json()["result"]
    assert shown == created
    assert (PATIENT | change).items() <= shown.items()


@pytest.mark.parametrize(("change", "field"), BAD_VALUES, ids=_name_of)
def test_a_patient_is_not_added_with(practice: Practice, change: dict[str, Any], field: str) -> None:
    assert_faults(practice.add(**change), field)


@pytest.mark.parametrize("field", ["name", "age", "mobile"])
def test_a_patient_needs(practice: Practice, field: str) -> None:
    body = {key: value for key, value in PATIENT.items() if key != field}
    assert_faults(practice.call("POST", PATIENTS, json=body), field)


def test_every_fault_is_listed_and_no_value_echoed(practice: Practice) -> None:
    body = {"name": "", "age": "qx-age", "mobile": "qx-mobile", "qx": "qx-value"}
    answer = practice.call("POST", PATIENTS, json=body)
    assert_faults(answer, "name", "age", "mobile", "qx")
    assert all(value not in answer.text for value in ("qx-age", "qx-mobile", "qx-value"))


# list


def test_a_new_practice_has_an_empty_list(new_practice: Callable[..., Practice]) -> None:
    answer = assert_success(new_practice().get(PATIENTS), 200, LISTED, "result")
    assert answer["result"] == {"data": []}


def test_the_list_shows_active_patients_only(new_practice: Callable[..., Practice]) -> None:
    joined = new_practice()
    first, gone, last = (joined.new_patient(name=name) for name in ("first", "gone", "last"))
    joined.call("DELETE", patient_path(gone["id"]))
    assert joined.patients() == [first, last]


def test_pages_show_every_patient_once(new_practice: Callable[..., Practice]) -> None:
    joined = new_practice()
    added = [joined.new_patient(name=f"patient {number}") for number in range(7)]
    seen: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 3}
    sizes = []
    while True:
        answer = joined.get(PATIENTS, params=query)
        result = assert_success(answer, 200, LISTED, "result")["result"]
        seen += result["data"]
        sizes.append(len(result["data"]))
        if "next_cursor" not in result:
            assert "link" not in answer.headers
            break
        query = {"limit": 3, "cursor": result["next_cursor"]}
        linked = joined.get(answer.links["next"]["url"])
        assert linked.json() == joined.get(PATIENTS, params=query).json()
    assert sizes == [3, 3, 1]
    assert seen == added


def test_a_page_that_is_exactly_full_has_no_next_one(new_practice: Callable[..., Practice]) -> None:
    joined = new_practice()
    for _ in range(3):
        joined.new_patient()
    answer = joined.get(PATIENTS, params={"limit": 3})
    assert len(answer.json()["result"]["data"]) == 3
    assert set(answer.json()["result"]) == {"data"}
    assert "link" not in answer.headers


def test_a_cursor_continues_though_patients_came_and_went(new_practice: Callable[..., Practice]) -> None:
    joined = new_practice()
    added = [joined.new_patient() for _ in range(4)]
    cursor = joined.get(PATIENTS, params={"limit": 2}).json()["result"]["next_cursor"]
    joined.call("DELETE", patient_path(added[0]["id"]))
    joined.call("DELETE", patient_path(added[1]["id"]))
    newest = joined.new_patient()
    assert joined.patients(limit=10, cursor=cursor) == [added[2], added[3], newest]


def test_a_hundred_are_shown_unless_another_limit_is_asked_for(new_practice: Callable[..., Practice]) -> None:
    joined = new_practice()
    for _ in range(101):
        joined.new_patient()
    assert len(joined.patients()) == 100
    assert len(joined.patients(limit=1000)) == 101


@pytest.mark.parametrize("cursor", ["x", "not a cursor", "W10", "WyJ4Il0", "A" * 100, "%00", "é"], ids=repr)
def test_a_malformed_cursor_is_400(practice: Practice, cursor: str) -> None:
    assert_error(practice.get(PATIENTS, params={"cursor": cursor}), 400)


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "ten", "1.5", ""], ids=repr)
def test_an_impossible_limit_is_422(practice: Practice, limit: str) -> None:
    assert_faults(practice.get(PATIENTS, params={"limit": limit}), "limit")


# read, replace, change


def test_a_patient_is_read(practice: Practice) -> None:
    created = practice.new_patient()
    shown = assert_success(practice.get(patient_path(created["id"])), 200, FETCHED, "result")
    assert shown["result"] == created


def test_put_replaces_the_patient(practice: Practice) -> None:
    created = practice.new_patient()
    body = {"name": "Replaced", "age": 31, "mobile": "+49 30 1234567"}
    answer = practice.call("PUT", patient_path(created["id"]), json=body)
    changed = assert_success(answer, 200, UPDATED, "result")["result"]
    assert {**body, "id": created["id"], "is_deleted": 0}.items() <= changed.items()
    assert practice.get(patient_path(created["id"])).json()["result"] == changed


@pytest.mark.parametrize("field", ["name", "age", "mobile"])
def test_put_needs_the_whole_patient(practice: Practice, field: str) -> None:
    created = practice.new_patient()
    body = {key: value for key, value in PATIENT.items() if key != field}
    assert_faults(practice.call("PUT", patient_path(created["id"]), json=body), field)
    assert practice.get(patient_path(created["id"])).json()["result"] == created


@pytest.mark.parametrize("media_type", ["application/json", MERGE_PATCH, "application/json; charset=utf-8"])
@pytest.mark.parametrize(
    "change", [{"name": "Changed"}, {"age": 99}, {"mobile": "00000"}, {"name": "Both", "age": 1}], ids=_name_of
)
def test_patch_changes_what_is_sent_and_nothing_else(
    practice: Practice, change: dict[str, Any], media_type: str
) -> None:
    created = practice.new_patient()
    answer = _send(practice, "PATCH", patient_path(created["id"]), json.dumps(change).encode(), media_type)
    changed = assert_success(answer, 200, UPDATED, "result")["result"]
    assert {key: changed[key] for key in PATIENT_KEYS} == {key: created[key] for key in PATIENT_KEYS} | change
    assert practice.get(patient_path(created["id"])).json()["result"] == changed


def test_an_empty_patch_changes_nothing(practice: Practice) -> None:
    created = practice.new_patient()
    answer = practice.call("PATCH", patient_path(created["id"]), json={})
    changed = assert_success(answer, 200, UPDATED, "result")["result"]
    assert {key: changed[key] for key in PATIENT_KEYS} == {key: created[key] for key in PATIENT_KEYS}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize(("change", "field"), BAD_VALUES, ids=_name_of)
def test_a_patient_is_not_changed_to(
    practice: Practice, method: str, change: dict[str, Any], field: str, unchanged: dict[str, Any]
) -> None:
    body = PATIENT | change if method == "PUT" else change
    assert_faults(practice.call(method, patient_path(unchanged["id"]), json=body), field)
    assert practice.get(patient_path(unchanged["id"])).json()["result"] == unchanged


@pytest.fixture(scope="module")
def unchanged(practice: Practice) -> dict[str, Any]:
    """A patient that every test finds as it was."""
    return practice.new_patient(name="Unchanged")


# delete and restore


def test_a_deleted_patient_is_not_found_though_the_row_stays(
    practice: Practice, stack: EmbeddedStack, superuser_dsn: str
) -> None:
    created = practice.new_patient(name="Stays as a row")
    path = patient_path(created["id"])
    assert_success(practice.call("DELETE", path), 200, DELETED)
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        body = {"json": PATIENT} if method in {"PUT", "PATCH"} else {}
        assert_error(practice.call(method, path, **body), 404)
    [database] = [one["database"] for one in stack.command_json("practices", "list") if one["id"] == practice.id]
    stored = rows(
        with_database(superuser_dsn, database),
        "SELECT name, age, mobile, is_deleted FROM patients WHERE id = %s",
        created["id"],
    )
    assert stored == [("Stays as a row", PATIENT["age"], PATIENT["mobile"], 1)]


def test_a_restored_patient_is_back(practice: Practice) -> None:
    created = practice.new_patient()
    practice.call("DELETE", patient_path(created["id"]))
    answer = practice.call("POST", patient_path(created["id"], "/restore"))
    restored = assert_success(answer, 200, RESTORED, "result")["result"]
    assert {key: restored[key] for key in PATIENT_KEYS} == {key: created[key] for key in PATIENT_KEYS}
    assert practice.get(patient_path(created["id"])).json()["result"] == restored
    assert created["id"] in {one["id"] for one in practice.patients(limit=1000)}


def test_restoring_an_active_patient_changes_nothing(practice: Practice) -> None:
    created = practice.new_patient()
    answer = practice.call("POST", patient_path(created["id"], "/restore"))
    restored = assert_success(answer, 200, RESTORED, "result")["result"]
    assert {key: restored[key] for key in PATIENT_KEYS} == {key: created[key] for key in PATIENT_KEYS}


# what is not there


ID_ROUTES = [("GET", ""), ("PUT", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/restore")]


@pytest.mark.parametrize(("method", "deed"), ID_ROUTES, ids=str)
def test_unknown_deleted_and_impossible_ids_get_one_answer(practice: Practice, method: str, deed: str) -> None:
    body = {"json": PATIENT} if method in {"PUT", "PATCH"} else {}
    ids = [new_uuid(), "018f0000-0000-7000-8000-000000000000", "not-a-uuid", "1", "0" * 36]
    if deed != "/restore":
        deleted = practice.new_patient()["id"]
        practice.call("DELETE", patient_path(deleted))
        ids.append(deleted)
    answers = [practice.call(method, patient_path(one, deed), **body) for one in ids]
    for one, answer in zip(ids, answers, strict=True):
        assert answer.status_code == 404, one
        assert without_instance(answer) == without_instance(answers[0])
    assert len({frozenset(set(answer.headers)) for answer in answers}) == 1


@pytest.mark.parametrize(("method", "deed"), ID_ROUTES, ids=str)
@pytest.mark.parametrize("segment", ["'", "%00", "%2e%2e", "%27%20OR%201=1", "é", "0" * 500, "a;b", "{id}"], ids=repr)
def test_what_can_be_no_id_is_404(practice: Practice, method: str, deed: str, segment: str) -> None:
    body = {"json": PATIENT} if method in {"PUT", "PATCH"} else {}
    assert_error(practice.call(method, patient_path(segment, deed), **body), 404)
