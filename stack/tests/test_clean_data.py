"""`gowebbo clean-data` removes a home of GoWebbo's that nobody uses, and never anything else."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gowebbo_stack.home import Home

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "gowebbo_stack", "clean-data"]


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    home.prepare()
    (home.postgres("a") / "base").mkdir(parents=True)
    home.secrets.write_text("{")  # damaged: starting anew is the way out that people are told
    home.mailbox.symlink_to(tmp_path)
    return home


def clean(path, *words, stdin=subprocess.DEVNULL):
    return subprocess.run(
        [*COMMAND, *words],
        env={"PATH": os.environ["PATH"], "GOWEBBO_HOME": str(path)},
        stdin=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def contents(folder):
    return sorted(folder.rglob("*"))


def test_it_removes_the_home_and_nothing_that_only_is_linked_there(home, tmp_path):
    (tmp_path / "stranger").touch()
    done = clean(home.path, "--yes")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path) == [tmp_path / "stranger"]


def test_it_removes_nothing_while_a_stack_runs(home):
    before = contents(home.path)
    with home.lock():
        refused = clean(home.path, "--yes")
    assert refused.returncode == 1
    assert "A stack is running" in refused.stderr
    assert contents(home.path) == before


@pytest.mark.parametrize("file", ["secrets.json", "lock", "something"])
def test_a_folder_that_no_stack_worked_on_is_left_alone(tmp_path, file):
    (tmp_path / "logs").mkdir()
    (tmp_path / file).write_text('{"token": "theirs"}')
    before = contents(tmp_path)
    refused = clean(tmp_path, "--yes")
    assert refused.returncode == 1
    assert "nothing was removed" in refused.stderr
    assert contents(tmp_path) == before


def test_somebody_elses_things_in_a_home_stay(home):
    (home.path / "notes.txt").write_text("theirs")
    (home.path / "postgres-backup-of-mine").mkdir()
    assert clean(home.path, "--yes").returncode == 0
    assert [one.name for one in contents(home.path)] == ["notes.txt", "postgres-backup-of-mine"]


def test_a_folder_that_was_there_keeps_its_mode(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    Home(shared).prepare()
    assert shared.stat().st_mode & 0o777 == 0o755
    Home(tmp_path / "new").prepare()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_home_that_was_put_back_from_a_copy_is_ours(home):
    home.lock_file.unlink()
    assert not home.is_ours
    home.secrets.write_text(json.dumps({"SHARD_SECRET": "s", "POSTGRES_PASSWORD": "p"}))
    home.prepare()
    assert home.is_ours


def test_without_a_terminal_it_wants_to_be_told(home):
    refused = clean(home.path)
    assert refused.returncode == 1
    assert "--yes" in refused.stderr
    assert home.is_ours


@pytest.mark.parametrize(("answer", "removed"), [("y", True), ("n", False)])
def test_on_a_terminal_it_asks(home, answer, removed):
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        done = clean(home.path, stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode == 0) == removed
    assert home.path.exists() != removed


def test_what_is_not_there_is_no_failure(tmp_path):
    assert clean(tmp_path / "absent", "--yes").returncode == 0


@pytest.mark.parametrize("installed", [True, False])
def test_the_makefile_removes_the_home_that_dotenv_names(home, tmp_path, installed):
    """Without the command there is no home but the one that `make up` would have made."""
    checkout = tmp_path / "checkout"
    (checkout / "stack").mkdir(parents=True)
    (checkout / "stack" / "pyproject.toml").touch()
    (checkout / ".gowebbo").mkdir()
    (checkout / ".env").write_text(f"GOWEBBO_HOME={home.path}\n")
    shutil.copytree(ROOT / "stack" / "src", checkout / "stack" / "src")
    shutil.copy(ROOT / "Makefile", checkout)
    program = checkout / ".venv" / "bin" / "gowebbo"
    if installed:
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m gowebbo_stack "$@"\n')
        program.chmod(0o755)
    subprocess.run(
        ["make", "-C", checkout, "clean-data"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(checkout / "stack" / "src")},
        check=True,
    )
    assert home.path.exists() != installed
    assert (checkout / ".gowebbo").exists() == installed
