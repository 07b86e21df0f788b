"""`gowebbo servers …`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gowebbo_stack.commands.terminal import AsJson, Url, Yes, as_admin, confirm, fail, moving_bar, print_rows

if TYPE_CHECKING:
    from gowebbo_stack.admin import Admin

app = typer.Typer(help="PostgreSQL servers that hold practices' databases.", no_args_is_help=True)
Key = Annotated[str, typer.Argument(help="The server's name in this fleet: b, west-2.")]


@app.command("list")
def list_all(*, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:  # noqa: ARG001
    """List the PostgreSQL servers with their load."""
    from gowebbo_stack import operations  # noqa: PLC0415

    _show(url, operations.servers, as_json=as_json)


@app.command()
def add(
    key: Key,
    *,
    host: Annotated[str, typer.Option(help="Where tenant-service and patient-service reach it.")],
    port: Annotated[int, typer.Option(help="Its port.")] = 5432,
    sslmode: Annotated[
        str | None,
        typer.Option(help="libpq's. Default for a new one: verify-full, on this machine prefer."),
    ] = None,
    sslrootcert: Annotated[
        str | None, typer.Option(help="File of the authority on the services' machines, or `system`.")
    ] = None,
    capacity: Annotated[int | None, typer.Option(help="Practices it may take. Default: 5000.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    yes: Yes = False,  # noqa: ARG001
) -> None:
    """Check a PostgreSQL server (15 or newer) and put practices there from now on. Or change one's capacity or TLS.

    tenant-service logs in by SERVER_<KEY>_USER and SERVER_<KEY>_PASS, or else DB_USER and DB_PASS. A superuser there
    needs no further preparation; for another role `python -m tenant_service.cli prepare-server` does it.
    """
    from gowebbo_stack import operations  # noqa: PLC0415

    place: dict[str, str | int | None] = {
        "host": host,
        "port": port,
        "sslmode": sslmode,
        "sslrootcert": sslrootcert,
        "capacity": capacity,
    }
    _show(url, lambda admin: operations.add_server(admin, key, **place), as_json=as_json)


@app.command()
def drain(
    key: Key,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the practices that are there where they are.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    yes: Yes = False,
) -> None:
    """Put no more practices on a server, and move those it has to others, one after the other, while they work.

    Exit code 1 when not all of them could be moved. What was interrupted is repeated: only what is left will be moved.
    """
    from gowebbo_stack import operations  # noqa: PLC0415

    confirm(f"Drain server {key}?" if keep else f"Drain server {key} and move all its practices?", yes=yes)
    servers = as_admin(url, lambda admin: operations.set_server(admin, key, "drain"))
    left: list[dict[str, Any]] = []
    if not keep:
        with moving_bar("Moving practices") as tell:
            moves = as_admin(url, lambda admin: operations.evacuate(admin, key, tell=tell))
        left = [one for one in moves if one["result"] != "moved"]
        servers = as_admin(url, operations.servers)
    print_rows(servers, operations.SERVER_COLUMNS, as_json=as_json)
    if left:
        fail("\n".join(f"{one['practice']} is still on {key}: {one['reason']}" for one in left))


@app.command("open")
def take_back(key: Key, *, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:  # noqa: ARG001
    """Put practices on a drained server again."""
    from gowebbo_stack import operations  # noqa: PLC0415

    _show(url, lambda admin: operations.set_server(admin, key, "open"), as_json=as_json)


@app.command()
def remove(key: Key, *, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:
    """Forget a server that is drained and holds no practice. Nothing on it is changed."""
    from gowebbo_stack import operations  # noqa: PLC0415

    confirm(f"Forget server {key}?", yes=yes)
    _show(url, lambda admin: operations.remove_server(admin, key), as_json=as_json)


def _show(url: str | None, deed: Callable[["Admin"], list[dict[str, Any]]], *, as_json: bool) -> None:
    from gowebbo_stack import operations  # noqa: PLC0415

    print_rows(as_admin(url, deed), operations.SERVER_COLUMNS, as_json=as_json)
