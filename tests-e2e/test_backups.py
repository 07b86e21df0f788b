"""Backups as an operator works with them: taken, restored beside the live data, compared, swapped, taken back from."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_api import Api, Practice, patient_path
from e2e_stack import EmbeddedStack, StackFactory, eventually


@pytest.fixture(scope="module")
def stack(new_stack: StackFactory, tmp_path_factory: pytest.TempPathFactory) -> EmbeddedStack:
    return new_stack(BACKUP_DIR=str(tmp_path_factory.mktemp("scheduled"))).start()


@pytest.fixture(scope="module")
def api(stack: EmbeddedStack) -> Iterator[Api]:
    client = Api(stack.url)
    yield client
    client.close()


def test_time_travel_from_a_backup_to_single_patients(stack: EmbeddedStack, api: Api, tmp_path: Path) -> None:
    practice, neighbour = Practice.join(api), Practice.join(api)
    kept, changed, deleted = (practice.new_patient(name=name)["id"] for name in ("Kept", "Changed", "Deleted"))
    theirs = neighbour.new_patient()["id"]
    backup = stack.command_json("practices", "backup", practice.id, "--to", str(tmp_path))
    assert set(backup) == {"practice", "path", "sha256", "taken_at", "rows"}
    assert backup["rows"] == 3
    file = Path(backup["path"])
    assert file.parent == tmp_path
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"Changed" not in file.read_bytes()

    practice.call("PATCH", patient_path(changed), json={"name": "Somebody else"})
    practice.call("DELETE", patient_path(deleted))
    added = practice.new_patient(name="Added")["id"]
    restored = stack.command_json("practices", "restore", str(file))
    assert set(restored) == {"practice", "database", "rows"}
    assert (restored["practice"], restored["rows"]) == (practice.id, 3)
    copy = restored["database"]
    assert {one["name"] for one in practice.patients()} == {"Kept", "Somebody else", "Added"}
    found = stack.command_json("practices", "diff", practice.id, copy)
    assert found == {"added": [added], "removed": [], "changed": sorted([changed, deleted])}

    stack.command_json("practices", "take-back", practice.id, copy, "--patient", deleted)
    assert practice.get(patient_path(deleted)).json()["result"]["name"] == "Deleted"
    stack.command_json("practices", "swap", practice.id, copy)
    assert {one["name"] for one in practice.patients()} == {"Kept", "Changed", "Deleted"}
    practice.new_patient(name="Works")
    assert [one["id"] for one in neighbour.patients()] == [theirs]
    assert stack.command_json("practices", "diff", practice.id, copy)["changed"] == sorted([changed, deleted])
    stack.command_json("practices", "swap", practice.id, copy)
    assert {one["name"] for one in practice.patients()} == {"Kept", "Somebody else", "Deleted", "Added"}

    assert [one["database"] for one in stack.command_json("practices", "copies", practice.id)] == [copy]
    assert stack.command_json("practices", "verify-isolation")["ok"] is True
    assert stack.command_json("practices", "drop-copy", practice.id, copy) == []
    assert practice.get(patient_path(kept)).status_code == 200


def test_what_is_not_there_is_told(stack: EmbeddedStack, api: Api, tmp_path: Path) -> None:
    practice = Practice.join(api)
    gone = stack.command("practices", "restore", str(tmp_path / "nothing"), "--json")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "can't be read: No such file or directory" in gone.stderr
    unknown = stack.command("practices", "diff", practice.id, "shard_nothing", "--json")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "no such copy" in unknown.stderr


def test_scheduled_backups_are_taken_and_listed(stack: EmbeddedStack, api: Api) -> None:
    """A practice that signs up waits at most a minute for its first one; those before it have theirs at the start."""
    practice = Practice.join(api)
    [first] = eventually(
        lambda: stack.command_json("practices", "backups", practice.id), "a scheduled backup", timeout_s=90, poll_s=2
    )
    assert first["is_scheduled"] is True
    assert Path(first["path"]).stat().st_size == first["bytes"]
