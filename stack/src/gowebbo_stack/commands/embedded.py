"""The stack on this machine: `gowebbo up`, `status`, `clean-data`, `mailbox`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gowebbo_stack.commands.terminal import AsJson, Yes, confirm, fail, print_json, print_table

if TYPE_CHECKING:
    from gowebbo_stack.home import Home


def up(*, yes: Yes = False) -> None:  # noqa: ARG001 -- every command takes it
    """Run PostgreSQL, Valkey, a mail catcher and all services here, until Ctrl-C.

    PORT (5000), HOST (127.0.0.1), GOWEBBO_HOME (.gowebbo), EMBEDDED_MAX_CONNECTIONS (1000), EMBEDDED_SERVERS (1),
    GATEWAY_PROCESSES (1) and PATIENT_PROCESSES (1) choose where and how; `.env.example` lists every setting.
    """
    from gowebbo_stack.up import up as run  # noqa: PLC0415

    raise typer.Exit(run())


def status(*, as_json: AsJson = False, yes: Yes = False) -> None:  # noqa: ARG001
    """Show what runs: addresses and process ids. Exit code 1 when no stack is running."""
    from gowebbo_stack.register import status_of  # noqa: PLC0415

    home = _home()
    entries = status_of(home)
    if entries is None:
        fail(f"No stack is running on {home.path}. Start one with: make up")
    elif as_json:
        print_json(entries)
    else:
        print_table(("name", "pid", "where"), [_status_row(name, entry) for name, entry in entries.items()])


def clean_data(*, yes: Yes = False) -> None:
    """Remove GOWEBBO_HOME with all practices, patients, secrets and logs. Refused while a stack runs on it."""
    from gowebbo_stack.home import HomeInUseError, NotAHomeError  # noqa: PLC0415

    home = _home()
    if not home.path.exists():
        print(f"There is nothing to remove: {home.path} does not exist.")  # noqa: T201
        return
    if not yes and not sys.stdin.isatty():
        fail(f"This removes {home.path} with all data. Say so with --yes.")
    confirm(f"Remove {home.path} with all practices, patients and secrets?", yes=yes)
    try:
        home.remove()
    except NotAHomeError as error:
        fail(str(error))
    except HomeInUseError:
        fail(f"A stack is running on {home.path}. Stop it first; nothing was removed.")
    except OSError as error:
        fail(f"Not everything could be removed: {error}")
    print(f"{home.path} is removed.")  # noqa: T201


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
        fail(str(error))
    print(f"SMTP on {host}:{smtp_port}, page on http://{host}:{http_port}, mails in {directory}", flush=True)  # noqa: T201
    main(directory, doors)


def _home() -> "Home":
    from gowebbo_stack.settings import SettingsError, home_of, read_given  # noqa: PLC0415

    try:
        return home_of(read_given())
    except SettingsError as error:
        fail(str(error))


def _status_row(name: str, entry: dict[str, Any]) -> list[Any]:
    pids = entry.get("pids") or [entry.get("pid")]
    where = entry.get("url") or entry.get("dsn") or ""
    return [name, ", ".join("restarting" if pid is None else str(pid) for pid in pids), _without_password(where)]


def _without_password(url: str) -> str:
    """Return a URL that may stand on a screen."""
    from urllib.parse import urlsplit  # noqa: PLC0415

    password = urlsplit(url).password
    return url.replace(f":{password}@", ":…@") if password else url
