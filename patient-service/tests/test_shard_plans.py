"""How PostgreSQL goes about the statements: planned once a session, and down an index whatever a practice has."""

import pytest
from patient_practices import PatientClient, Practice, ShardServer

pytestmark = pytest.mark.anyio

FILL = """
INSERT INTO patients (id, name, mobile, age)
SELECT gen_random_uuid(), 'Patient ' || n, '9876543210', n % 100 FROM generate_series(1, 20000) n
"""
"""In no order: reading down the index then costs most, by PostgreSQL's reckoning."""


async def test_statements_are_planned_once_and_read_an_index_in_its_order(
    service: PatientClient, practice: Practice, shard_server: ShardServer
):
    for statement in (FILL, "VACUUM (ANALYZE) patients"):
        shard_server.run(statement, database=practice.database)
    for _ in range(8):
        listed = (await service.call(practice, "GET", "?limit=20")).json()["result"]["data"]
        assert len(listed) == 20
        await service.call(practice, "GET", f"/{listed[0]['id']}")
        await service.call(practice, "PATCH", f"/{listed[0]['id']}", json={"age": 7})

    async def told(question: str) -> list[tuple]:
        return await service.app.state.pool.fetch(practice.id, practice.shard, question, ())

    plans = await told("SELECT name, generic_plans, custom_plans FROM pg_prepared_statements")
    assert sorted(plans) == [(b"change_active", 8, 0), (b"list_active", 8, 0), (b"read_active", 8, 0)]
    first_page = "EXECUTE list_active (20, '00000000-0000-0000-0000-000000000000')"
    plan = b"\n".join(row for (row,) in await told(f"EXPLAIN (COSTS OFF) {first_page}"))
    assert b"Index Scan using patients_active_idx" in plan
    assert b"Sort" not in plan
