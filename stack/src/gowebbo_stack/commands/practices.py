"""`gowebbo practices …`."""

import typer

from gowebbo_stack.commands.terminal import AsJson, Url, Yes, as_admin, print_rows

app = typer.Typer(help="Practices and where their databases are.", no_args_is_help=True)


@app.command("list")
def list_all(*, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:  # noqa: ARG001
    """List all practices with the server and the name of their databases."""
    from gowebbo_stack import operations  # noqa: PLC0415

    print_rows(as_admin(url, operations.practices), operations.PRACTICE_COLUMNS, as_json=as_json)
