"""`gowebbo practices …` for backups and copies of a practice's data."""

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from gowebbo_stack.commands.practices import PracticeId
from gowebbo_stack.commands.terminal import (
    AsJson,
    Url,
    Yes,
    as_admin,
    confirm,
    print_json,
    print_outcome,
    print_rows,
    print_table,
)

Restored = Annotated[str, typer.Argument(metavar="RESTORED", help="The copy's database, as `restore` told it.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the group of practices."""
    for name, command in (
        ("backup", backup),
        ("backups", backups),
        ("restore", restore),
        ("copies", copies),
        ("diff", diff),
        ("swap", swap),
        ("take-back", take_back),
        ("drop-copy", drop_copy),
    ):
        app.command(name)(command)


def backup(
    practice_id: PracticeId,
    *,
    to: Annotated[Path, typer.Option(help="A folder on tenant-service's machine; made if absent.")],
    as_json: AsJson = False,
    url: Url = None,
    yes: Yes = False,  # noqa: ARG001
) -> None:
    """Write a consistent, compressed file that only this practice's key opens, while its people work."""
    from gowebbo_stack import operations  # noqa: PLC0415

    print_outcome(as_admin(url, lambda admin: operations.backup(admin, practice_id, to)), as_json=as_json)


def backups(practice_id: PracticeId, *, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:  # noqa: ARG001
    """List a practice's backups, the newest first: those that were asked for, and the scheduled ones that are kept."""
    from gowebbo_stack import operations  # noqa: PLC0415

    rows = as_admin(url, lambda admin: operations.backups(admin, practice_id))
    print_rows(rows, operations.BACKUP_COLUMNS, as_json=as_json)


def restore(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file, on tenant-service's machine.")],
    *,
    as_json: AsJson = False,
    url: Url = None,
    yes: Yes = False,  # noqa: ARG001
) -> None:
    """Restore a backup beside the live data, which stays as it is. No practice can reach the copy."""
    from gowebbo_stack import operations  # noqa: PLC0415

    print_outcome(as_admin(url, lambda admin: operations.restore(admin, path)), as_json=as_json)


def copies(practice_id: PracticeId, *, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:  # noqa: ARG001
    """List the copies of a practice's data: restored, left behind by a move, put aside by a swap."""
    from gowebbo_stack import operations  # noqa: PLC0415

    rows = as_admin(url, lambda admin: operations.copies(admin, practice_id))
    print_rows(rows, operations.COPY_COLUMNS, as_json=as_json)


def diff(
    practice_id: PracticeId,
    restored: Restored,
    *,
    as_json: AsJson = False,
    url: Url = None,
    yes: Yes = False,  # noqa: ARG001
) -> None:
    """Compare the live data with a copy, patient by patient: what was added, removed and changed since."""
    from gowebbo_stack import operations  # noqa: PLC0415

    found = as_admin(url, lambda admin: operations.with_copy(admin, practice_id, restored, "diff"))
    if found.pop("truncated"):
        typer.echo("The lists are cut off: there are more.", err=True)
    if as_json:
        print_json(found)
    else:
        print_table(("since then", "patient"), [(kind, patient) for kind in found for patient in found[kind]])


def swap(
    practice_id: PracticeId, restored: Restored, *, as_json: AsJson = False, url: Url = None, yes: Yes = False
) -> None:
    """Put a copy in the place of the live data, which becomes the copy: a second swap undoes the first."""
    from gowebbo_stack import operations  # noqa: PLC0415

    confirm(f"Put {restored} in the place of what practice {practice_id} works with?", yes=yes)
    outcome = as_admin(url, lambda admin: operations.with_copy(admin, practice_id, restored, "swap"))
    print_outcome(outcome, as_json=as_json)


def take_back(
    practice_id: PracticeId,
    restored: Restored,
    *,
    patient: Annotated[list[UUID], typer.Option(help="The patient's id; may be given several times.")],
    as_json: AsJson = False,
    url: Url = None,
    yes: Yes = False,
) -> None:
    """Put single patients of a copy into the live data, as they were then: all of them or none."""
    from gowebbo_stack import operations  # noqa: PLC0415

    confirm(f"Overwrite {len(patient)} patients of practice {practice_id} with what {restored} has?", yes=yes)
    body = {"patients": [str(one) for one in patient]}
    outcome = as_admin(url, lambda admin: operations.with_copy(admin, practice_id, restored, "take-back", body))
    print_outcome(outcome, as_json=as_json)


def drop_copy(
    practice_id: PracticeId, restored: Restored, *, as_json: AsJson = False, url: Url = None, yes: Yes = False
) -> None:
    """Drop a copy before its time is over. The live data is not touched."""
    from gowebbo_stack import operations  # noqa: PLC0415

    confirm(f"Drop {restored}, a copy of the data of practice {practice_id}?", yes=yes)
    rows = as_admin(url, lambda admin: operations.drop_copy(admin, practice_id, restored))
    print_rows(rows, operations.COPY_COLUMNS, as_json=as_json)
