"""`gowebbo practices …`."""

from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from gowebbo_stack.commands.terminal import (
    AsJson,
    Url,
    Yes,
    as_admin,
    confirm,
    counting,
    fail,
    moving_bar,
    print_json,
    print_outcome,
    print_rows,
    print_table,
)

PracticeId = Annotated[UUID, typer.Argument(metavar="ID", help="The practice's id, as `practices list` shows it.")]

app = typer.Typer(help="Practices and where their databases are.", no_args_is_help=True)


@app.command("list")
def list_all(*, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:  # noqa: ARG001
    """List all practices with the server and the name of their databases."""
    from gowebbo_stack import operations  # noqa: PLC0415

    print_rows(as_admin(url, operations.practices), operations.PRACTICE_COLUMNS, as_json=as_json)


@app.command()
def suspend(practice_id: PracticeId, *, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:
    """Refuse every call of a practice, log-ins too, until it is resumed. Takes effect within seconds.

    No session ends, no data changes, and other practices notice nothing.
    """
    from gowebbo_stack import operations  # noqa: PLC0415

    confirm(f"Suspend practice {practice_id}? Its people can do nothing until it is resumed.", yes=yes)
    print_outcome(as_admin(url, lambda admin: operations.suspend(admin, practice_id)), as_json=as_json)


@app.command()
def resume(practice_id: PracticeId, *, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:  # noqa: ARG001
    """Let a suspended practice in again, with the tokens that it has. Takes effect within seconds."""
    from gowebbo_stack import operations  # noqa: PLC0415

    print_outcome(as_admin(url, lambda admin: operations.resume(admin, practice_id)), as_json=as_json)


@app.command()
def close(practice_id: PracticeId, *, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:
    """Refuse every call of a practice, and destroy all that it stored when the time to undo it is over."""
    from gowebbo_stack import operations  # noqa: PLC0415

    confirm(f"Close practice {practice_id}? When the time to undo it is over, all its data is destroyed.", yes=yes)
    print_outcome(as_admin(url, lambda admin: operations.close(admin, practice_id, "close")), as_json=as_json)


@app.command("undo-close")
def undo_close(practice_id: PracticeId, *, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:  # noqa: ARG001
    """Let a practice that is being closed go on as what it was."""
    from gowebbo_stack import operations  # noqa: PLC0415

    print_outcome(as_admin(url, lambda admin: operations.close(admin, practice_id, "undo-close")), as_json=as_json)


@app.command()
def export(
    practice_id: PracticeId,
    *,
    to: Annotated[Path, typer.Option(help="A folder on tenant-service's machine; made if absent.")],
    as_json: AsJson = False,
    url: Url = None,
    yes: Yes = False,  # noqa: ARG001
) -> None:
    """Write what a practice takes with it: patients as CSV and JSON, and the audit of its accounts. Not encrypted."""
    from gowebbo_stack import operations  # noqa: PLC0415

    print_outcome(as_admin(url, lambda admin: operations.export(admin, practice_id, to)), as_json=as_json)


@app.command("deletion-record")
def deletion_record(practice_id: PracticeId, *, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:  # noqa: ARG001
    """Show the signed record that a closed practice's data was destroyed."""
    from gowebbo_stack import operations  # noqa: PLC0415

    print_outcome(as_admin(url, lambda admin: operations.deletion_record(admin, practice_id)), as_json=as_json)


@app.command()
def move(
    practice_id: PracticeId,
    *,
    to: Annotated[str, typer.Option(help="The key of the server it goes to, as `servers list` shows it.")],
    as_json: AsJson = False,
    url: Url = None,
    yes: Yes = False,
) -> None:
    """Move a practice to another server while it works. Exit code 1 when it was rolled back to where it was.

    Its calls wait or are refused for a moment (503 with Retry-After); nothing that was acknowledged is lost.
    """
    from gowebbo_stack import operations  # noqa: PLC0415

    confirm(f"Move practice {practice_id} to server {to}?", yes=yes)
    with moving_bar("Moving") as tell:
        outcome = as_admin(url, lambda admin: operations.move(admin, practice_id, to, tell=tell))
    reason = outcome.pop("reason", None)
    print_outcome(outcome, as_json=as_json)
    if outcome["result"] != "moved":
        fail(f"The practice is where it was: {reason}")


@app.command("verify-isolation")
def verify_isolation(
    practice_id: Annotated[UUID | None, typer.Argument(metavar="[ID]", help="Of this practice only.")] = None,
    *,
    as_json: AsJson = False,
    url: Url = None,
    yes: Yes = False,  # noqa: ARG001
) -> None:
    """Prove, on PostgreSQL itself, that each practice alone reaches its database. Exit code 1 unless all is right."""
    from gowebbo_stack import operations  # noqa: PLC0415

    with counting("Practices") as seen:
        found = as_admin(url, lambda admin: operations.isolation(admin, practice_id, seen=seen))
    if as_json:
        print_json(found)
    else:
        print_table(("id", "isolated", "what is wrong"), [_isolation_row(practice) for practice in found["practices"]])
    if not found["ok"]:
        raise typer.Exit(1)


def _isolation_row(practice: dict[str, Any]) -> list[Any]:
    wrong = [f"{check['name']}: {check['detail']}" for check in practice["checks"] if not check["ok"]]
    return [practice["id"], "no" if wrong else "yes", "\n".join(wrong)]
