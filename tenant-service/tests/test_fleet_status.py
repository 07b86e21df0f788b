"""What an operator is told of the fleet is read from the shards themselves, and changes nothing."""

import time
from typing import Any

import pytest
from migration_stand import FORMER, HEAD, behind, fences, ledger, migrate, put_back, table_locked
from tenant_stand import ADMIN, Fleet, Tenants, execute_at

from tenant_service import fleet_status
from tenant_service.storage.directory import Shard

STATUS = "/api/v1/admin/shards/status"


def status(tenants: Tenants, **query: Any) -> dict[str, Any]:
    answer = tenants.call("GET", STATUS, caller=ADMIN, params=query)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()["result"]
    return page


def of(tenants: Tenants, shard: Shard) -> dict[str, Any]:
    [row] = [row for row in status(tenants)["data"] if row["database"] == shard.database]
    return row


def test_each_standing_is_told(tenants: Tenants, fleet: Fleet) -> None:
    current, late, bad, lost, newer, stuck = shards = [fleet.shard() for _ in range(6)]
    migrate(fleet)
    put_back(fleet, late)
    # the directory believes what it was told last: the shards know better
    execute_at(fleet.postgres.dsn(fleet.database), "UPDATE tenant.shards SET revision = %s", HEAD)
    execute_at(fleet.postgres.dsn(bad.database), "GRANT DELETE ON patients TO shard_rw")
    execute_at(fleet.postgres.dsn(), f"DROP DATABASE {lost.database}")
    execute_at(fleet.postgres.dsn(newer.database), "UPDATE alembic_version SET version_num = '9999'")
    noted, directory = ledger(fleet), fleet.query("SELECT * FROM tenant.shards ORDER BY 1")
    with table_locked(fleet, stuck, "ACCESS EXCLUSIVE"):
        page = status(tenants)
    assert page["head"] == HEAD
    assert [row["practice_id"] for row in page["data"]] == sorted(str(shard.practice_id) for shard in shards)
    rows = {row["database"]: row for row in page["data"]}
    assert {name: (row["state"], row["revision"], row["fingerprint_ok"]) for name, row in rows.items()} == {
        current.database: ("current", HEAD, True),
        late.database: ("behind", FORMER, True),
        bad.database: ("drifted", HEAD, False),
        lost.database: ("unreachable", HEAD, None),
        newer.database: ("ahead", "9999", True),
        stuck.database: ("unreachable", HEAD, None),
    }
    assert rows[current.database]["seconds"] == noted[current.database][2]
    assert rows[current.database]["error"] is None
    assert "+ grant DELETE, INSERT" in rows[bad.database]["error"]
    assert "does not exist" in rows[lost.database]["error"]
    assert "lock" in rows[stuck.database]["error"]
    assert ledger(fleet) == noted
    assert fleet.query("SELECT * FROM tenant.shards ORDER BY 1") == directory


def test_a_fence_is_told_until_it_is_lifted(tenants: Tenants, fleet: Fleet) -> None:
    shard = fleet.shard()
    execute_at(fleet.postgres.dsn(shard.database), "CREATE TABLE surplus (id int)")
    migrate(fleet)
    assert of(tenants, shard)["state"] == "drifted"
    execute_at(fleet.postgres.dsn(shard.database), "DROP TABLE surplus")
    assert of(tenants, shard)["state"] == "fenced"
    assert fences(fleet) == {shard.database: "drifted"}
    migrate(fleet)
    assert (of(tenants, shard)["state"], of(tenants, shard)["error"]) == ("current", None)


def test_pages_follow_each_other(tenants: Tenants, fleet: Fleet) -> None:
    shards = behind(fleet, 5)
    found, cursor = [], {}
    for _ in range(3):
        page = status(tenants, limit=2, **cursor)
        found += [row["database"] for row in page["data"]]
        cursor = {"cursor": page.get("next_cursor")}
    assert found == [shard.database for shard in shards]
    assert cursor == {"cursor": None}
    assert tenants.call("GET", STATUS, caller=ADMIN, params={"cursor": "x"}).status_code == 400
    assert tenants.call("GET", STATUS, caller=ADMIN, params={"limit": 101}).status_code == 422


def test_a_page_is_cut_short_where_looking_takes_long(
    tenants: Tenants, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = behind(fleet, 3)
    monkeypatch.setattr(fleet_status, "PAGE_S", 0)
    page = status(tenants)
    assert [row["database"] for row in page["data"]] == [shards[0].database]
    assert [row["database"] for row in status(tenants, cursor=page["next_cursor"])["data"]] == [shards[1].database]


def test_a_server_that_is_down_is_asked_once(tenants: Tenants, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    behind(fleet, 40)
    tried = []

    def fail(access: Any, database: str) -> None:
        tried.append(database)
        return type(access).connect(access._replace(port=1), database).close()

    monkeypatch.setattr(fleet_status.shard_migration, "look", fail)
    monkeypatch.setattr(fleet_status, "_answers", lambda _: False)
    began = time.monotonic()
    rows = status(tenants)["data"]
    assert time.monotonic() - began < 10
    assert {row["state"] for row in rows} == {"unreachable"}
    assert len(rows) == 40
    assert all("refused" in row["error"] for row in rows)
    assert len(tried) <= fleet_status.AT_ONCE


def test_an_empty_fleet_is_one_page(tenants: Tenants) -> None:
    assert status(tenants) == {"head": HEAD, "data": []}
