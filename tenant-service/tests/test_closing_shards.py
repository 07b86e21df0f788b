"""The end of a practice's data: exported whole, then gone from server, disk and directory, whatever is interrupted."""

import csv
import io
import json
import stat
import uuid
import zipfile
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from migration_stand import NoProgress
from tenant_stand import ADMIN, Fleet, execute_at, query_at, serving, wait_for

from tenant_service import shard_database
from tenant_service.exceptions import (
    DeedRefusedError,
    ErasureUnfinishedError,
    ShardStampedOtherwiseError,
    ShardUnknownError,
)
from tenant_service.storage import copies, directory
from tenant_service.storage.directory import Shard


def do(fleet: Fleet, kind: str, **arguments: Any) -> dict[str, Any]:
    result: dict[str, Any] = fleet.app.state.deeds[kind](arguments, NoProgress())
    return result


def with_backup_and_copy(fleet: Fleet, folder: Path) -> tuple[Shard, Path]:
    """A shard with a patient, a file of it, and a copy beside it."""
    shard = fleet.shard()
    fleet.store_patient(str(shard.database))
    backup = do(fleet, "backup-practice", practice_id=str(shard.practice_id), to=str(folder))
    do(fleet, "restore-backup", path=backup["path"])
    return shard, Path(backup["path"])


def assert_gone(fleet: Fleet, shard: Shard, file: Path) -> None:
    assert fleet.databases() == {}
    assert query_at(fleet.postgres.dsn(), "SELECT 1 FROM pg_roles WHERE rolname = %s", shard.database) == []
    assert not file.exists()
    for table in ("copies", "backups", "backup_keys"):
        assert fleet.query(f"SELECT * FROM tenant.{table}") == [], table
    assert fleet.query("SELECT state, server, database FROM tenant.shards") == [("undone", None, None)]


def test_nothing_is_left_and_neighbours_notice_nothing(fleet: Fleet, tmp_path: Path) -> None:
    shard, file = with_backup_and_copy(fleet, tmp_path)
    saved = file.read_bytes()
    erased = fleet.app.state.erasing.erase(shard.practice_id)
    assert erased == {"database": shard.database, "backup_files": 1}
    assert_gone(fleet, shard, file)
    [(action, practice)] = fleet.query(
        "SELECT action, practice_id::text FROM tenant.operations WHERE action = 'practice.erased'"
    )
    assert (action, practice) == ("practice.erased", str(shard.practice_id))
    kinds = [row[0] for row in fleet.query("SELECT kind FROM tenant.changes")]
    assert kinds[-1] == "shard-released"
    file.write_bytes(saved)  # a copy of the file that somebody kept
    with pytest.raises(DeedRefusedError, match="destroyed"):
        do(fleet, "restore-backup", path=str(file))
    neighbour = fleet.shard()
    fleet.app.state.erasing.erase(shard.practice_id)
    fleet.sweep()
    assert set(fleet.databases()) == {neighbour.database}
    with pytest.raises(ShardUnknownError):
        fleet.provisioning.find(shard.practice_id)


@pytest.mark.parametrize(
    ("module", "step"),
    [
        (copies, "delete_copy"),
        (shard_database, "lock_out"),
        (shard_database, "drop"),
        (directory, "erase_shard"),
    ],
)
def test_interrupted_anywhere_it_is_ended_by_the_next_call(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, step: str
) -> None:
    shard, file = with_backup_and_copy(fleet, tmp_path)
    original = getattr(module, step)

    def broken(*arguments: Any, **options: Any) -> Any:
        original(*arguments, **options)
        raise psycopg2.OperationalError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(module, step, broken)
        with pytest.raises(psycopg2.OperationalError):
            fleet.app.state.erasing.erase(shard.practice_id)
    fleet.app.state.erasing.erase(shard.practice_id)
    assert_gone(fleet, shard, file)


def test_a_copy_and_a_backup_that_are_made_meanwhile_do_not_outlive_the_practice(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, file = with_backup_and_copy(fleet, tmp_path)
    practice = str(shard.practice_id)
    original, late = shard_database.lock_out, []

    def meanwhile(session: Any, database: str) -> None:
        again = do(fleet, "backup-practice", practice_id=practice, to=str(tmp_path))  # its key was destroyed: a new one
        do(fleet, "restore-backup", path=again["path"])
        late.append(Path(again["path"]))
        original(session, database)

    with monkeypatch.context() as patched:
        patched.setattr(shard_database, "lock_out", meanwhile)
        with pytest.raises(ErasureUnfinishedError):
            fleet.app.state.erasing.erase(shard.practice_id)
    assert fleet.state_of(shard.practice_id) == "ready"  # nothing was said to be over
    fleet.app.state.erasing.erase(shard.practice_id)
    assert_gone(fleet, shard, file)
    assert not late[0].exists()


def test_a_backup_that_ends_late_leaves_neither_key_nor_file(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, file = with_backup_and_copy(fleet, tmp_path)
    original, late = shard_database.lock_out, []

    def meanwhile(session: Any, database: str) -> None:
        late.append(do(fleet, "backup-practice", practice_id=str(shard.practice_id), to=str(tmp_path))["path"])
        original(session, database)

    monkeypatch.setattr(shard_database, "lock_out", meanwhile)
    fleet.app.state.erasing.erase(shard.practice_id)
    assert_gone(fleet, shard, file)
    assert not Path(late[0]).exists()


def test_a_database_that_bears_anothers_stamp_is_not_dropped(fleet: Fleet) -> None:
    """Whatever the directory says."""
    shard = fleet.shard()
    execute_at(fleet.postgres.dsn(), f"ALTER DATABASE \"{shard.database}\" SET gowebbo.practice_id = 'somebody'")
    with pytest.raises(ShardStampedOtherwiseError):
        fleet.app.state.erasing.erase(shard.practice_id)
    assert set(fleet.databases()) == {shard.database}


def test_who_never_had_a_shard_gets_none_any_more(fleet: Fleet) -> None:
    practice = uuid.uuid4()
    assert fleet.app.state.erasing.erase(practice) == {"database": None, "backup_files": 0}
    assert fleet.state_of(practice) == "undone"


def test_an_export_holds_every_patient_and_what_auth_service_adds(fleet: Fleet, tmp_path: Path) -> None:
    shard = fleet.shard()
    execute_at(
        fleet.postgres.dsn(shard.database),
        "INSERT INTO patients (id, name, mobile, age, is_deleted) VALUES"
        " (gen_random_uuid(), E'Ä \"quoted\", \\n\\\\ line', '+1', 3, 0), (gen_random_uuid(), 'Gone', '12345', 4, 1)",
    )
    practice, audit = {"id": str(shard.practice_id), "name": "Clinic"}, [{"action": "practice.signed-up"}]
    exported = fleet.app.state.exporting.export(shard.practice_id, tmp_path / "exports", practice=practice, audit=audit)
    path = Path(exported["path"])
    assert (exported["rows"], stat.S_IMODE(path.stat().st_mode)) == (2, 0o600)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        content = {name: archive.read(name).decode() for name in archive.namelist()}
    assert set(content) == {"patients.csv", "patients.json", "practice.json", "audit.json"}
    as_csv = list(csv.DictReader(io.StringIO(content["patients.csv"])))
    as_json = json.loads(content["patients.json"])
    assert [row["name"] for row in as_csv] == [row["name"] for row in as_json]
    assert {row["name"] for row in as_json} == {'Ä "quoted", \n\\ line', "Gone"}
    assert (json.loads(content["practice.json"]), json.loads(content["audit.json"])) == (practice, audit)


def test_services_alone_erase_and_export(fleet: Fleet, tmp_path: Path) -> None:
    shard = fleet.shard()
    (tmp_path / "file").write_text("")
    path = f"/internal/shards/{shard.practice_id}"
    body = {"to": str(tmp_path), "practice": {}, "audit": []}
    with serving(fleet) as tenants:
        wait_for(tenants.is_ready)
        assert tenants.call("POST", f"{path}/erase", caller=ADMIN).status_code == 404
        assert tenants.call("POST", f"{path}/export", caller=ADMIN, json=body).status_code == 404
        relative = tenants.call("POST", f"{path}/export", json=body | {"to": "exports"})
        assert relative.status_code == 422
        blocked = tenants.call("POST", f"{path}/export", json=body | {"to": str(tmp_path / "file")})
        assert (blocked.status_code, blocked.json()["type"]) == (409, "/errors/export-refused")
        assert tenants.call("POST", f"{path}/export", json=body).json()["rows"] == 0
        assert tenants.call("POST", f"{path}/erase").json() == {"database": shard.database, "backup_files": 0}
        assert tenants.call("POST", f"{path}/erase").json() == {"database": None, "backup_files": 0}
        assert tenants.get(shard.practice_id).status_code == 404
