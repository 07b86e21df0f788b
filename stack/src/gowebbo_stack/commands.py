"""The commands of `gowebbo`: they parse, call and print. Each imports only what it needs, so that all are quick."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from gowebbo_stack.home import Home

app = typer.Typer(
    help="GoWebbo: run everything on this machine, and look after practices and their servers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
practices_app = typer.Typer(help="Practices and where their databases are.", no_args_is_help=True)
servers_app = typer.Typer(help="PostgreSQL servers that hold practices' databases.", no_args_is_help=True)
app.add_typer(practices_app, name="practices")
app.add_typer(servers_app, name="servers")

_PIPED_WIDTH = 1000  # nothing is folded where no terminal sets a limit

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of a table.")]
Yes = Annotated[bool, typer.Option("--yes", help="Don't ask.")]
Url = Annotated[
    str | None, typer.Option(help="The gateway's address. Default: GOWEBBO_URL, else the embedded stack's.")
]


@app.command()
def up(*, yes: Yes = False) -> None:  # noqa: ARG001 -- every command takes it
    """Run PostgreSQL, Valkey, a mail catcher and all services here, until Ctrl-C.

    PORT (5000), HOST (127.0.0.1), GOWEBBO_HOME (.gowebbo), EMBEDDED_MAX_CONNECTIONS (1000), EMBEDDED_SERVERS (1),
    GATEWAY_PROCESSES (1) and PATIENT_PROCESSES (1) choose where and how; `.env.example` lists every setting.
    """
    from gowebbo_stack.up import up as run  # noqa: PLC0415

    raise typer.Exit(run())


@app.command()
def status(*, as_json: AsJson = False, yes: Yes = False) -> None:  # noqa: ARG001
    """Show what runs: addresses and process ids. Exit code 1 when no stack is running."""
    from gowebbo_stack.register import status_of  # noqa: PLC0415

    home = _home()
    entries = status_of(home)
    if entries is None:
        _fail(f"No stack is running on {home.path}. Start one with: make up")
    elif as_json:
        print(json.dumps(entries, indent=2))  # noqa: T201
    else:
        _print_table(("name", "pid", "where"), [_status_row(name, entry) for name, entry in entries.items()])


@app.command()
def clean_data(*, yes: Yes = False) -> None:
    """Remove GOWEBBO_HOME with all practices, patients, secrets and logs. Refused while a stack runs on it."""
    from gowebbo_stack.home import HomeInUseError, NotAHomeError  # noqa: PLC0415

    home = _home()
    if not home.path.exists():
        print(f"There is nothing to remove: {home.path} does not exist.")  # noqa: T201
        return
    if not yes and not sys.stdin.isatty():
        _fail(f"This removes {home.path} with all data. Say so with --yes.")
    if not yes:
        typer.confirm(f"Remove {home.path} with all practices, patients and secrets?", abort=True)
    try:
        home.remove()
    except NotAHomeError as error:
        _fail(str(error))
    except HomeInUseError:
        _fail(f"A stack is running on {home.path}. Stop it first; nothing was removed.")
    except OSError as error:
        _fail(f"Not everything could be removed: {error}")
    print(f"{home.path} is removed.")  # noqa: T201


@app.command()
def mailbox(
    *,
    directory: Annotated[Path, typer.Option(help="The Maildir to keep mails in.")] = Path("mailbox"),
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    smtp_port: Annotated[int, typer.Option(help="The port for SMTP.")] = 1025,
    http_port: Annotated[int, typer.Option(help="The port of the page to read mails on.")] = 8025,
    yes: Yes = False,  # noqa: ARG001
) -> None:
    """Catch mails alone, for a development environment. `gowebbo up` brings its own catcher."""
    from gowebbo_stack.mailbox import main, own_doors  # noqa: PLC0415
    from gowebbo_stack.ports import PortTakenError  # noqa: PLC0415

    try:
        doors = own_doors(host, smtp_port=smtp_port, http_port=http_port)
    except PortTakenError as error:
        _fail(str(error))
    print(f"SMTP on {host}:{smtp_port}, page on http://{host}:{http_port}, mails in {directory}", flush=True)  # noqa: T201
    main(directory, doors)


@practices_app.command("list")
def list_practices(*, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:  # noqa: ARG001
    """List all practices with the server and the name of their databases."""
    from gowebbo_stack import operations  # noqa: PLC0415

    _print_rows(operations.practices, operations.PRACTICE_COLUMNS, url, as_json=as_json)


@servers_app.command("list")
def list_servers(*, as_json: AsJson = False, url: Url = None, yes: Yes = False) -> None:  # noqa: ARG001
    """List the PostgreSQL servers with their load."""
    from gowebbo_stack import operations  # noqa: PLC0415

    _print_rows(operations.servers, operations.SERVER_COLUMNS, url, as_json=as_json)


def _print_rows(
    fetch: Callable[[Any], list[dict[str, Any]]], columns: Sequence[str], url: str | None, *, as_json: bool
) -> None:
    from gowebbo_stack.admin import CommandFailedError, find_admin  # noqa: PLC0415

    try:
        rows = fetch(find_admin(url))
    except CommandFailedError as error:
        _fail(str(error))
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))  # noqa: T201
    else:
        _print_table(columns, [[row[column] for column in columns] for row in rows])


def _home() -> "Home":
    from gowebbo_stack.settings import SettingsError, home_of, read_given  # noqa: PLC0415

    try:
        return home_of(read_given())
    except SettingsError as error:
        _fail(str(error))


def _status_row(name: str, entry: dict[str, Any]) -> list[Any]:
    pids = entry.get("pids") or [entry.get("pid")]
    where = entry.get("url") or entry.get("dsn") or ""
    return [name, ", ".join("restarting" if pid is None else str(pid) for pid in pids), _without_password(where)]


def _without_password(url: str) -> str:
    """Return a URL that may stand on a screen."""
    from urllib.parse import urlsplit  # noqa: PLC0415

    password = urlsplit(url).password
    return url.replace(f":{password}@", ":…@") if password else url


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table()
    for column in columns:  # what is copied into other commands must stay in one piece
        table.add_column(column, no_wrap=column in {"id", "database", "pid"}, overflow="fold")
    for row in rows:
        table.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH).print(table)


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)  # noqa: T201
    raise typer.Exit(1)
