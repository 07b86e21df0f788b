"""`gowebbo servers …`."""

import typer

from gowebbo_stack.commands.terminal import AsJson, Url, Yes, as_admin, print_rows

app = typer.Typer(help="PostgreSQL servers that hold practices' databases.", no_args_is_help=True)


@app.command("list")
def list_all(*, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:  # noqa: ARG001
    """List the PostgreSQL servers with their load."""
    from gowebbo_stack import operations  # noqa: PLC0415

    print_rows(as_admin(url, operations.servers), operations.SERVER_COLUMNS, as_json=as_json)
