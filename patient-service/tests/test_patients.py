"""The rows of the contract about patients, and their error cases."""

import re
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from patient_practices import JOHN, PatientClient, Practice, ShardServer

from shared.cursor import encode_cursor
from shared.ids import new_id

pytestmark = pytest.mark.anyio

RFC3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


async def test_adds_and_reads_a_patient(service: PatientClient, practice: Practice):
    added = await service.call(practice, "POST", json=JOHN)
    envelope = added.json()
    patient = envelope.pop("result")
    assert added.status_code == 201
    assert envelope == {"success": True, "status": 201, "message": "Patient added successfully!"}
    assert patient | JOHN | {"is_deleted": 0, "version": 1} == patient
    assert RFC3339_UTC.fullmatch(patient["created_at"])
    assert patient["id"][14] == "7"

    read = await service.call(practice, "GET", f"/{patient['id']}")
    assert read.headers["content-type"] == "application/json"
    assert (read.status_code, read.json()["message"]) == (200, "Patient fetched successfully!")
    assert read.json()["result"] == patient


async def test_lists_active_patients_only(service: PatientClient, practice: Practice):
    empty = await service.call(practice, "GET")
    assert empty.json() == {
        "success": True,
        "status": 200,
        "message": "Patients fetched successfully!",
        "result": {"data": []},
    }
    kept, deleted = await service.add(practice, name="Kept"), await service.add(practice, name="Deleted")
    await service.call(practice, "DELETE", f"/{deleted['id']}")
    assert (await service.call(practice, "GET")).json()["result"] == {"data": [kept]}


async def test_pages_cover_every_patient_once(service: PatientClient, practice: Practice):
    names = [(await service.add(practice, name=f"Number {number}"))["name"] for number in range(7)]
    seen, query, pages = [], "?limit=3", 0
    while query:
        answer = await service.call(practice, "GET", query)
        result = answer.json()["result"]
        seen += [patient["name"] for patient in result["data"]]
        pages += 1
        query = f"?limit=3&cursor={result['next_cursor']}" if "next_cursor" in result else ""
        expected = f'</api/v1/patients{query}>; rel="next"' if query else None
        assert answer.headers.get("link") == expected
    assert (seen, pages) == (names, 3)
    assert len(await service.names(practice, limit=7)) == 7
    exactly_full = await service.call(practice, "GET", "?limit=7")
    assert "next_cursor" not in exactly_full.json()["result"]


async def test_replaces_a_patient(service: PatientClient, practice: Practice):
    patient = await service.add(practice)
    new = {"name": "Jane Doe", "age": 31, "mobile": "+91 (98765) 43210"}
    answer = await service.call(practice, "PUT", f"/{patient['id']}", json=new)
    assert (answer.status_code, answer.json()["message"]) == (200, "Patient updated successfully!")
    replaced = answer.json()["result"]
    assert replaced == patient | new | {"version": 2, "updated_at": replaced["updated_at"]}
    assert replaced["updated_at"] > patient["updated_at"]


@pytest.mark.parametrize("media_type", ["application/json", "application/merge-patch+json"])
async def test_changes_only_what_is_sent(service: PatientClient, practice: Practice, media_type: str):
    patient = await service.add(practice)
    answer = await service.call(
        practice, "PATCH", f"/{patient['id']}", content=b'{"age": 0}', headers={"Content-Type": media_type}
    )
    assert answer.status_code == 200
    changed = answer.json()["result"]
    assert changed == patient | {"age": 0, "version": 2, "updated_at": changed["updated_at"]}


async def test_an_empty_change_changes_nothing(service: PatientClient, practice: Practice):
    patient = await service.add(practice)
    answer = await service.call(practice, "PATCH", f"/{patient['id']}", json={})
    assert (answer.status_code, answer.json()["result"]) == (200, patient)


async def test_a_deleted_patient_is_hidden_and_its_row_stays(
    service: PatientClient, practice: Practice, shard_server: ShardServer
):
    patient = await service.add(practice)
    path = f"/{patient['id']}"
    answer = await service.call(practice, "DELETE", path)
    assert answer.json() == {"success": True, "status": 200, "message": "Patient deleted successfully!"}
    for method, body in (("GET", None), ("PUT", JOHN), ("PATCH", {"age": 1}), ("PATCH", {}), ("DELETE", None)):
        assert (await service.call(practice, method, path, json=body)).status_code == 404, method
    rows = shard_server.run("SELECT is_deleted, age FROM patients", database=practice.database)
    assert rows == [(1, JOHN["age"])]


async def test_restores_a_deleted_patient(service: PatientClient, practice: Practice):
    patient = await service.add(practice)
    await service.call(practice, "DELETE", f"/{patient['id']}")
    answer = await service.call(practice, "POST", f"/{patient['id']}/restore")
    assert (answer.status_code, answer.json()["message"]) == (200, "Patient restored successfully!")
    restored = answer.json()["result"]
    assert restored == patient | {"version": 3, "updated_at": restored["updated_at"]}
    again = await service.call(practice, "POST", f"/{patient['id']}/restore")
    assert (again.status_code, again.json()["result"]) == (200, restored)


async def test_unknown_deleted_foreign_and_impossible_ids_get_one_answer(
    service: PatientClient, practice: Practice, other_practice: Practice
):
    foreign = await service.add(other_practice)
    deleted = await service.add(practice)
    await service.call(practice, "DELETE", f"/{deleted['id']}")
    ids = [new_id(), foreign["id"], "0", "%20", deleted["id"] + "0", "{" + str(new_id()) + "}", "x" * 127]
    answers = set()
    for method, suffix, body in (
        ("GET", "", None),
        ("PUT", "", JOHN),
        ("PATCH", "", {"name": "X"}),
        ("DELETE", "", None),
        ("POST", "/restore", None),
    ):
        for patient_id in ids if suffix else [*ids, deleted["id"]]:
            answer = await service.call(practice, method, f"/{patient_id}{suffix}", json=body)
            problem = answer.json()
            problem.pop("instance")
            answers.add((answer.status_code, answer.headers["content-type"], str(problem)))
    assert len(answers) == 1
    assert next(iter(answers))[0] == 404
    assert (await service.names(other_practice)) == ["John Doe"]


@pytest.mark.parametrize(
    "cursor",
    ["x", "!!!!", encode_cursor("not an id"), encode_cursor(), encode_cursor("a", "b"), encode_cursor("' OR 1=1")],
)
async def test_a_malformed_cursor_is_refused(service: PatientClient, practice: Practice, cursor: str):
    answer = await service.call(practice, "GET", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["type"]) == (400, "/errors/malformed-cursor")


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "1e2", ""])
async def test_a_limit_out_of_range_is_refused(service: PatientClient, practice: Practice, limit: str):
    assert (await service.call(practice, "GET", params={"limit": limit})).status_code == 422


async def test_text_of_any_script_comes_back_as_written(service: PatientClient, practice: Practice):
    names = [
        "Zoë O'Brien",
        'Quote " and \\ backslash',
        "%s %(name)s $1",
        "राम",
        "👩‍⚕️",
        "'; DROP TABLE patients; --",
        "{}",
    ]
    for name in names:
        await service.add(practice, name=name)
    assert await service.names(practice) == names
    assert (await service.add(practice, name="  trimmed  "))["name"] == "trimmed"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20), min_size=1, max_size=20
    )
)
@example(texts=["".join(map(chr, range(1, 0x2030)))[start : start + 20] for start in range(0, 0x202F, 20)])
async def test_every_text_that_is_stored_is_shown_as_json(
    service: PatientClient, practice: Practice, shard_server: ShardServer, texts: list[str]
):
    """Whatever came into the table by another way than this service: nothing of it may break out of its string."""
    shard_server.run("TRUNCATE patients", database=practice.database)
    shard_server.run(
        "INSERT INTO patients (id, name, age, mobile)"
        " SELECT gen_random_uuid(), shown, 1, shown FROM unnest(%s) AS shown",
        (texts,),
        database=practice.database,
    )
    data = (await service.call(practice, "GET", "?limit=1000")).json()["result"]["data"]
    assert sorted(patient["name"] for patient in data) == sorted(texts)
    assert all(patient["mobile"] == patient["name"] for patient in data)
    some = await service.call(practice, "GET", f"/{data[0]['id']}")
    assert some.json()["result"] == data[0]


async def test_answers_have_no_blanks(service: PatientClient, practice: Practice):
    patient = await service.add(practice)
    one = await service.call(practice, "GET", f"/{patient['id']}")
    assert one.content == orjson.dumps(one.json())
    await service.add(practice)
    page = await service.call(practice, "GET", "?limit=1")
    assert page.content == orjson.dumps(page.json())


async def test_the_largest_page_is_whole(service: PatientClient, practice: Practice, shard_server: ShardServer):
    rows = 1001
    shard_server.run(
        "INSERT INTO patients (id, name, age, mobile)"
        " SELECT gen_random_uuid(), repeat('ä', 200), 1, '12345' FROM generate_series(1, %s)",
        (rows,),
        database=practice.database,
    )
    result: dict[str, Any] = (await service.call(practice, "GET", params={"limit": 1000})).json()["result"]
    assert len(result["data"]) == 1000
    rest = (await service.call(practice, "GET", params={"cursor": result["next_cursor"]})).json()["result"]
    assert len(rest["data"]) == 1
    assert len({patient["id"] for patient in result["data"] + rest["data"]}) == rows
