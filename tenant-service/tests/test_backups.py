"""Backups: consistent, readable by nobody else, whole or nothing; restored beside the live shard, in the same rows."""

import errno
import io
import json
import os
import signal
import stat
import tarfile
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pyrage
import pytest
from migration_stand import FORMER, HEAD, NoProgress, put_back
from prometheus_client import CollectorRegistry
from pyrage import x25519
from tenant_stand import ADMIN, SHARD_SECRET, Fleet, execute_at, interrupted, new_fleet, query_at, serving, wait_for

from gowebbo_stack.testing import PostgresServer
from tenant_service import backup_file, shard_copy
from tenant_service.backup_file import BackupUnreadableError
from tenant_service.backup_keys import BackupKeys
from tenant_service.exceptions import DeedRefusedError
from tenant_service.keep_rule import KeepRule
from tenant_service.scheduled_backups import ScheduledBackups
from tenant_service.sealing import Sealing, UnsealableError
from tenant_service.storage.directory import Shard

RESTORING = [
    ("storage.copies.insert_copy", "after"),
    ("shard_database.clone", "after"),
    ("shard_database.open_as_copy", "after"),
    ("shard_copy.load", "after"),
    ("shard_copy.digests", "after"),
    ("storage.copies.mark_ready", "after"),
]


def do(fleet: Fleet, kind: str, progress: NoProgress | None = None, **arguments: Any) -> dict[str, Any]:
    """What the job leads to."""
    result: dict[str, Any] = fleet.app.state.deeds[kind](arguments, progress or NoProgress())
    return result


def back_up(fleet: Fleet, shard: Shard, folder: Path) -> dict[str, Any]:
    return do(fleet, "backup-practice", practice_id=str(shard.practice_id), to=str(folder))


def restore(fleet: Fleet, path: object) -> dict[str, Any]:
    return do(fleet, "restore-backup", path=str(path))


def rows_of(fleet: Fleet, database: str | None) -> list[tuple[Any, ...]]:
    """Every row, written alike."""
    return fleet.query("SELECT p::text FROM patients p ORDER BY id", database=database)


def filled(fleet: Fleet, count: int, *, size: int = 20) -> Shard:
    """A shard with so many patients."""
    shard = fleet.shard()
    execute_at(
        fleet.postgres.dsn(shard.database),
        "INSERT INTO patients (id, name, mobile, age)"
        f" SELECT gen_random_uuid(), repeat(chr(228 + mod(i, 100)), {size}) || E'\\\\ \\t\\n', '12345', mod(i, 99)"
        f" FROM generate_series(1, {count}) i",
    )
    return shard


def copies(fleet: Fleet) -> set[str]:
    return {row[0] for row in fleet.query("SELECT database FROM tenant.copies")}


def identity_of(fleet: Fleet, practice_id: uuid.UUID) -> x25519.Identity:
    keys = BackupKeys(fleet.app.state.engine, Sealing([SHARD_SECRET.encode()]))
    return keys.identity(practice_id)


@pytest.mark.parametrize("count", [0, 1, 30_000])
def test_what_is_backed_up_is_restored_beside_the_live_shard(fleet: Fleet, tmp_path: Path, count: int) -> None:
    shard, neighbour = filled(fleet, count, size=190), filled(fleet, 3)
    before, others = rows_of(fleet, shard.database), rows_of(fleet, neighbour.database)
    backup = back_up(fleet, shard, tmp_path / "made" / "if absent")
    assert (backup["practice"], backup["rows"]) == (str(shard.practice_id), count)
    path = Path(backup["path"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with path.open("rb") as file:
        assert backup_file.sha256_of(file) == backup["sha256"]
    execute_at(fleet.postgres.dsn(shard.database), "UPDATE patients SET is_deleted = 1")
    restored = restore(fleet, path)
    assert (restored["practice"], restored["rows"]) == (str(shard.practice_id), count)
    assert rows_of(fleet, restored["database"]) == before
    assert fleet.stamp_of(restored["database"]) == f"copy:{shard.practice_id}"
    assert rows_of(fleet, neighbour.database) == others
    for role in (str(shard.database), str(neighbour.database)):
        with pytest.raises(psycopg2.OperationalError):
            fleet.log_in(role, restored["database"])
    fleet.sweep()
    assert copies(fleet) == {restored["database"]}
    assert fleet.databases()[restored["database"]] is True
    report = fleet.app.state.isolation.of_practice(shard.practice_id)
    assert all(check.ok for check in report.checks), report


def test_the_file_is_ages_tars_and_gzips_own(fleet: Fleet, tmp_path: Path) -> None:
    """Whoever has the key needs no GoWebbo to read it."""
    shard = filled(fleet, 2)
    path = Path(back_up(fleet, shard, tmp_path)["path"])
    plain = pyrage.decrypt(path.read_bytes(), [identity_of(fleet, shard.practice_id)])
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:gz") as archive:
        names = archive.getnames()
        about, manifest = (json.load(archive.extractfile(name) or io.BytesIO()) for name in (names[0], names[-1]))
        rows = (archive.extractfile("patients/000000.copy") or io.BytesIO()).read()
    assert names == ["about.json", "patients/000000.copy", "manifest.json"]
    assert (about["practice"], about["revision"], about["format"]) == (str(shard.practice_id), HEAD, 1)
    assert manifest["digests"]["patients"][0] == rows.count(b"\n") == 2


def test_a_backup_shows_one_moment(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = filled(fleet, 10)
    original = shard_copy.digests

    def meanwhile(session: Any) -> Any:
        found = original(session)
        execute_at(fleet.postgres.dsn(shard.database), "UPDATE patients SET age = 1")
        fleet.store_patient(str(shard.database))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(shard_copy, "digests", meanwhile)
        backup = back_up(fleet, shard, tmp_path)
    assert backup["rows"] == 10
    assert restore(fleet, backup["path"])["rows"] == 10


def test_another_practices_key_opens_nothing(fleet: Fleet, tmp_path: Path) -> None:
    mine, other = filled(fleet, 1), filled(fleet, 1)
    path = Path(back_up(fleet, mine, tmp_path)["path"])
    back_up(fleet, other, tmp_path)
    fleet.change("DELETE FROM tenant.backups")
    forged = path.with_name(path.name.replace(str(mine.practice_id), str(other.practice_id)))
    path.rename(forged)
    with pytest.raises(BackupUnreadableError, match="encrypted for another practice"):
        restore(fleet, forged)
    assert copies(fleet) == set()


def test_a_restored_directory_knows_a_file_by_its_name(fleet: Fleet, tmp_path: Path) -> None:
    shard = filled(fleet, 1)
    path = Path(back_up(fleet, shard, tmp_path)["path"])
    fleet.change("DELETE FROM tenant.backups")
    assert restore(fleet, path)["rows"] == 1
    nameless = path.rename(tmp_path / "backup")
    with pytest.raises(DeedRefusedError, match="Nobody knows whose backup this is"):
        restore(fleet, nameless)


def test_a_destroyed_key_erases_every_backup(fleet: Fleet, tmp_path: Path) -> None:
    shard = filled(fleet, 1)
    backup = back_up(fleet, shard, tmp_path)
    fleet.change("DELETE FROM tenant.backup_keys")
    with pytest.raises(DeedRefusedError, match="destroyed"):
        restore(fleet, backup["path"])


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "no age", "tail"])
def test_a_damaged_file_leaves_nothing_behind(fleet: Fleet, tmp_path: Path, damage: str) -> None:
    shard = filled(fleet, 20_000)
    path = Path(back_up(fleet, shard, tmp_path)["path"])
    content = bytearray(path.read_bytes())
    changed = {
        "cut": content[: len(content) // 2],
        "tail": content[:-1],
        "empty": bytearray(),
        "no age": bytearray(b"x" * 1000),
        "bit": content[:-5000] + bytes([content[-5000] ^ 1]) + content[-4999:],
    }[damage]
    path.write_bytes(changed)
    with pytest.raises(BackupUnreadableError):
        restore(fleet, path)
    assert copies(fleet) == set()
    assert set(fleet.databases()) == {shard.database}


def test_rows_that_are_not_those_of_the_manifest_are_refused(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = filled(fleet, 5)
    path = back_up(fleet, shard, tmp_path)["path"]
    monkeypatch.setattr(shard_copy, "digests", lambda _: {})
    with pytest.raises(BackupUnreadableError, match="not what was backed up"):
        restore(fleet, path)
    assert set(fleet.databases()) == {shard.database}


def test_a_backup_of_the_former_revision_is_migrated_when_it_is_restored(fleet: Fleet, tmp_path: Path) -> None:
    shard = filled(fleet, 4)
    put_back(fleet, shard)
    path = back_up(fleet, shard, tmp_path)["path"]
    restored = restore(fleet, path)
    assert fleet.query("SELECT version_num FROM alembic_version", database=restored["database"]) == [(HEAD,)]
    assert fleet.query("SELECT version_num FROM alembic_version", database=shard.database) == [(FORMER,)]
    assert rows_of(fleet, restored["database"]) == rows_of(fleet, shard.database)


@pytest.mark.parametrize(("step", "when"), RESTORING)
def test_killed_while_restoring_it_is_begun_anew(fleet: Fleet, tmp_path: Path, step: str, when: str) -> None:
    shard = filled(fleet, 50)
    path = back_up(fleet, shard, tmp_path)["path"]
    progress = NoProgress()
    order = {"kind": "restore-backup", "path": path, "job_id": str(progress.job_id)}
    assert interrupted(fleet, json.dumps(order), "-", step, when) == -signal.SIGKILL
    restored = do(fleet, "restore-backup", progress, path=path)
    assert rows_of(fleet, restored["database"]) == rows_of(fleet, shard.database)
    assert copies(fleet) == {restored["database"]}
    fleet.sweep()
    assert set(fleet.databases()) == {shard.database, restored["database"]}


def test_killed_before_an_older_databases_stamp_it_is_not_left_behind(fleet: Fleet, tmp_path: Path) -> None:
    shard = filled(fleet, 5)
    put_back(fleet, shard)
    path = back_up(fleet, shard, tmp_path)["path"]
    count = "SELECT count(*) FROM pg_database"
    before = query_at(fleet.postgres.dsn(), count)
    order = {"kind": "restore-backup", "path": path, "job_id": str(NoProgress().job_id)}
    assert interrupted(fleet, json.dumps(order), "-", "templates.make_database", "after") == -signal.SIGKILL
    fleet.sweep()
    assert copies(fleet) == set()
    assert query_at(fleet.postgres.dsn(), count) == before


def test_what_a_killed_restore_left_goes_when_its_job_is_over(fleet: Fleet, tmp_path: Path) -> None:
    shard = filled(fleet, 5)
    path = back_up(fleet, shard, tmp_path)["path"]
    order = {"kind": "restore-backup", "path": path, "job_id": str(NoProgress().job_id)}
    interrupted(fleet, json.dumps(order), "-", "shard_copy.load", "after")
    assert len(copies(fleet)) == 1
    fleet.sweep()
    assert copies(fleet) == set()
    assert set(fleet.databases()) == {shard.database}


@pytest.mark.parametrize("moment", ["backup_file.write", "shard_copy.dump"])
def test_killed_while_backing_up_there_is_no_file_that_looks_whole(fleet: Fleet, tmp_path: Path, moment: str) -> None:
    shard = filled(fleet, 5)
    order = {
        "kind": "backup-practice",
        "practice_id": str(shard.practice_id),
        "to": str(tmp_path),
        "job_id": str(NoProgress().job_id),
    }
    assert interrupted(fleet, json.dumps(order), "-", moment, "after") == -signal.SIGKILL
    assert [entry.name for entry in tmp_path.iterdir() if not entry.name.endswith(".partial")] == []
    assert fleet.query("SELECT * FROM tenant.backups") == []
    [remains] = tmp_path.iterdir()
    back_up(fleet, shard, tmp_path)
    assert remains.exists()  # somebody might be writing it
    os.utime(remains, (0, 0))
    back_up(fleet, shard, tmp_path)
    assert not remains.exists()
    assert len(list(tmp_path.iterdir())) == 2


def full_disk(monkeypatch: pytest.MonkeyPatch, *, for_practice: uuid.UUID | None = None) -> None:
    """No file takes more than 100 bytes: all, or those of a practice."""
    original = backup_file.Hashed.write

    def write(self: backup_file.Hashed, data: Any) -> int:
        written = str(Path(f"/proc/self/fd/{self._file.fileno()}").readlink())
        if self.count > 100 and str(for_practice or "") in written:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, data)

    monkeypatch.setattr(backup_file.Hashed, "write", write)


def test_a_full_disk_is_told_and_leaves_nothing(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = filled(fleet, 20_000)
    full_disk(monkeypatch)
    with pytest.raises(DeedRefusedError, match="No space left on device"):
        back_up(fleet, shard, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert fleet.query("SELECT * FROM tenant.backups") == []


def test_a_fault_of_one_scheduled_backup_stops_no_other(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlucky, other = filled(fleet, 20_000), filled(fleet, 20_000)
    full_disk(monkeypatch, for_practice=unlucky.practice_id)
    assert schedule(fleet, tmp_path).round()
    assert [row[0] for row in fleet.query("SELECT practice_id::text FROM tenant.backups")] == [str(other.practice_id)]


def test_a_folder_that_cannot_be_written_to_is_told(fleet: Fleet, tmp_path: Path) -> None:
    shard = filled(fleet, 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(DeedRefusedError, match="can't be written to: File exists"):
        back_up(fleet, shard, tmp_path / "file")
    with pytest.raises(DeedRefusedError, match="can't be read: No such file"):
        restore(fleet, tmp_path / "nothing")


# Keys


def test_the_key_in_the_directory_is_sealed_and_sealed_anew_with_a_newer_secret(fleet: Fleet, tmp_path: Path) -> None:
    shard = filled(fleet, 1)
    path = back_up(fleet, shard, tmp_path)["path"]
    [(sealed,)] = fleet.query("SELECT identity FROM tenant.backup_keys")
    assert "AGE-SECRET-KEY" not in sealed
    newer, former = b"n" * 32, SHARD_SECRET.encode()
    with pytest.raises(UnsealableError):
        Sealing([newer]).open(sealed)
    keys = BackupKeys(fleet.app.state.engine, Sealing([newer, former]))
    assert (keys.reseal(), keys.reseal()) == (1, 0)
    assert BackupKeys(fleet.app.state.engine, Sealing([newer])).identity(shard.practice_id)
    with pytest.raises(DeedRefusedError, match="secret that is no longer known"):
        restore(fleet, path)  # this process knows the former one alone


# By schedule

NOON = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("rule", "ages_h", "kept"),
    [
        (KeepRule(0, 0, 0), [0, 1], [0]),
        (KeepRule(2, 0, 0), [0, 0.1, 1, 2], [0, 1]),
        (KeepRule(0, 2, 0), [0, 1, 24, 25, 48], [0, 24]),
        (KeepRule(0, 0, 2), [0, 24, 24 * 7, 24 * 8, 24 * 21], [0, 24 * 7]),
        (KeepRule(1, 2, 2), [0, 1, 24, 24 * 9], [0, 24, 24 * 9]),
        (KeepRule(5, 5, 5), [], []),
    ],
)
def test_of_each_hour_day_and_week_the_newest_is_kept(rule: KeepRule, ages_h: list[float], kept: list[float]) -> None:
    moments = {age: NOON - timedelta(hours=age) for age in ages_h}
    assert rule.kept(moments.values()) == {moments[age] for age in kept}


def schedule(fleet: Fleet, folder: Path | None, rule: KeepRule = KeepRule(1, 2, 0)) -> ScheduledBackups:  # noqa: B008
    return ScheduledBackups(
        fleet.app.state.engine,
        fleet.app.state.deeds["backup-practice"].__self__,
        BackupKeys(fleet.app.state.engine, Sealing([SHARD_SECRET.encode()])),
        folder=folder,
        every=timedelta(hours=24),
        rule=rule,
        metrics=CollectorRegistry(),
    )


def test_every_practice_is_backed_up_when_it_is_due(fleet: Fleet, tmp_path: Path) -> None:
    shards = [filled(fleet, 1) for _ in range(3)]
    rounds = schedule(fleet, tmp_path)
    assert rounds.round()
    assert {entry.name for entry in tmp_path.iterdir()} == {str(shard.practice_id) for shard in shards}
    assert rounds.round()
    assert len(fleet.query("SELECT 1 FROM tenant.backups WHERE is_scheduled")) == 3
    fleet.change(
        "UPDATE tenant.backups SET taken_at = now() - interval '25 h' WHERE practice_id = %s",
        str(shards[0].practice_id),
    )
    assert rounds.round()
    assert len(fleet.query("SELECT 1 FROM tenant.backups")) == 4


def test_what_no_rule_keeps_goes_but_for_what_somebody_asked_for(fleet: Fleet, tmp_path: Path) -> None:
    shard = filled(fleet, 1)
    asked = back_up(fleet, shard, tmp_path)
    rounds = schedule(fleet, tmp_path / "scheduled")
    for _ in range(5):
        rounds.round()
        fleet.change("UPDATE tenant.backups SET taken_at = taken_at - interval '24 h'")
    left = list((tmp_path / "scheduled" / str(shard.practice_id)).iterdir())
    assert len(left) == 2
    assert {row[0] for row in fleet.query("SELECT path FROM tenant.backups WHERE is_scheduled")} == set(map(str, left))
    assert Path(asked["path"]).exists()
    assert restore(fleet, left[0])["rows"] == 1


def test_one_practice_that_fails_keeps_no_other_from_its_backup(fleet: Fleet, tmp_path: Path) -> None:
    gone, other = filled(fleet, 1), filled(fleet, 1)
    execute_at(fleet.postgres.dsn(), f'DROP DATABASE "{gone.database}" WITH (FORCE)')
    schedule(fleet, tmp_path).round()
    assert [row[0] for row in fleet.query("SELECT practice_id::text FROM tenant.backups")] == [str(other.practice_id)]


def test_without_a_folder_nothing_is_taken(fleet: Fleet) -> None:
    filled(fleet, 1)
    assert schedule(fleet, None).round()
    assert fleet.query("SELECT * FROM tenant.backups") == []


def test_the_service_takes_scheduled_backups(postgres: PostgresServer, tmp_path: Path) -> None:
    fleet = new_fleet(postgres, backup_dir=tmp_path)
    try:
        assert fleet.servers.refresh()
        shard = fleet.shard()
        with serving(fleet) as tenants:
            wait_for(tenants.is_ready)
            wait_for(lambda: fleet.query("SELECT 1 FROM tenant.backups"))
            path = f"/api/v1/admin/practices/{shard.practice_id}/backups"
            [shown] = tenants.call("GET", path, caller=ADMIN).json()["result"]["data"]
            assert (shown["is_scheduled"], shown["revision"], shown["rows"]) == (True, HEAD, 0)
            assert os.path.getsize(shown["path"]) == shown["bytes"]  # noqa: PTH202
    finally:
        fleet.drop_everything()


def test_databases_of_the_server_are_as_many_as_before(fleet: Fleet, tmp_path: Path) -> None:
    """A backup makes none, and a copy's end leaves no role."""
    shard = filled(fleet, 1)
    count = "SELECT (SELECT count(*) FROM pg_database), (SELECT count(*) FROM pg_roles)"
    before = query_at(fleet.postgres.dsn(), count)
    restored = restore(fleet, back_up(fleet, shard, tmp_path)["path"])
    fleet.app.state.keeping.drop(shard.practice_id, restored["database"])
    assert query_at(fleet.postgres.dsn(), count) == before
