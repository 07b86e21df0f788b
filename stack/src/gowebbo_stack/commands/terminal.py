"""What all commands share: their options, and how they ask, print and fail."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from gowebbo_stack.admin import Admin

_PIPED_WIDTH = 1000  # nothing is folded where no terminal sets a limit

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of a table.")]
Yes = Annotated[bool, typer.Option("--yes", help="Don't ask.")]
Url = Annotated[
    str | None, typer.Option(help="The gateway's address. Default: GOWEBBO_URL, else the embedded stack's.")
]

_Result = TypeVar("_Result")


def as_admin(url: str | None, deed: Callable[["Admin"], _Result]) -> _Result:
    """Return what the deed does through the gateway; end the command with the reason when it can't be done."""
    from gowebbo_stack.admin import CommandFailedError, find_admin  # noqa: PLC0415

    try:
        return deed(find_admin(url))
    except CommandFailedError as error:
        fail(str(error))


def confirm(question: str, *, yes: bool) -> None:
    """Ask, on a terminal only: a script that calls a command means it. Ends the command unless the answer is yes."""
    if yes or not sys.stdin.isatty():
        return
    # not typer.confirm: it writes to standard output, which may be a file that JSON goes to
    print(f"{question} [y/N]: ", end="", file=sys.stderr, flush=True)  # noqa: T201
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        fail("Nothing was done.")


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal how many of how many are done; the errors' stream, so that results can be piped."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def print_json(document: Any) -> None:
    """Print for scripts."""
    print(json.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201


def print_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print a list of like things."""
    if as_json:
        print_json(rows)
    else:
        print_table(columns, [[row[column] for column in columns] for row in rows])


def print_outcome(outcome: dict[str, Any], *, as_json: bool) -> None:
    """Print what a deed led to: one row, or one object."""
    if as_json:
        print_json(outcome)
    else:
        print_table(list(outcome), [list(outcome.values())])


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print for people."""
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table()
    for column in columns:  # what is copied into other commands must stay in one piece
        table.add_column(column, no_wrap=column in {"id", "practice", "database", "pid"}, overflow="fold")
    for row in rows:
        table.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH).print(table)


@contextlib.contextmanager
def moving_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show how much is done, of how much, as long as this lasts: on a terminal only, and not among what is printed."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def fail(message: str) -> NoReturn:
    """End the command without success."""
    print(message, file=sys.stderr)  # noqa: T201
    raise typer.Exit(1)
