"""`gowebbo fleet …`."""

from typing import Annotated

import typer

from gowebbo_stack.commands.terminal import AsJson, Url, Yes, as_admin, fail, moving_bar, print_json, print_table

app = typer.Typer(help="All practices' databases at once.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `query` a command of its own, alone as it is."""


@app.command()
def query(
    statement: Annotated[str, typer.Argument(metavar="STATEMENT", help="One SELECT, in quotes.")],
    *,
    deadline: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds; who is slower has failed.")] = 30,
    as_json: AsJson = False,
    url: Url = None,
    yes: Yes = False,  # noqa: ARG001
) -> None:
    """Ask every practice's database one question. Exit code 0 only when all of them answered.

    Each is asked as the practice's own role, in a transaction that can't write. The question is in the record of
    operations.
    """
    from gowebbo_stack import operations  # noqa: PLC0415

    with moving_bar("Asking") as tell:
        found = as_admin(url, lambda admin: operations.ask_fleet(admin, statement, deadline, tell=tell))
    manifest = found.pop("manifest")
    if found.pop("truncated"):
        typer.echo("The rows are cut off: there are more.", err=True)
    if as_json:
        print_json(found)
    else:
        columns = list(dict.fromkeys(name for row in found["rows"] for name in row)) or ["practice_id"]
        print_table(columns, [[row.get(name) for name in columns] for row in found["rows"]])
    if found["failed"]:
        fail("\n".join(f"{one['practice_id']} did not answer: {one['error']}" for one in manifest if one["error"]))
