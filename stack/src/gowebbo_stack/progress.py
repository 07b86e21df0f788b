"""What `up` tells people: steps while it starts, how to use it when it is ready, what happens later."""

import contextlib
import io
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.status import Status

_EXAMPLE = """\
  curl {url}/api/v1/practices/signup -H 'Content-Type: application/json' \\
    -d '{{"name": "Main Street Clinic", "email": "clinic@example.com", "password": "securepassword"}}'"""


class _PatientConsole(Console):
    """A console whose reader may go away: the stack runs on, in silence."""

    def on_broken_pipe(self) -> None:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


class Progress:
    """Lines on standard output; with a moving sign on a terminal, plain when piped."""

    def __init__(self, console: Console | None = None) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal that knows no such signs gets others
        self._console = console or _PatientConsole(highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._doing: list[str] = []

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show that something is being done, and how long it took when it is done. Steps may overlap."""
        began = time.monotonic()
        self._doing.append(title)
        self._show()
        try:
            yield
        finally:
            self._doing.remove(title)
            self._show()
        self._console.print(f"[green]✓[/] {escape(title)} [dim]{time.monotonic() - began:.1f} s[/]")

    def say(self, line: str) -> None:
        """Tell one thing that happened."""
        self._console.print(f"[yellow]•[/] {escape(line)}")

    def fail(self, message: str) -> None:
        """Tell why it can't go on."""
        self._console.print(f"[red]✗[/] {escape(message)}")

    def ready(self, *, seconds: float, url: str, mailbox_url: str, admin: tuple[str, str], home: Path) -> None:
        """Show the addresses, the admin's credentials and a command to try."""
        facts = {
            "Gateway": url,
            "API documents": f"{url}/docs",
            "Caught mail": mailbox_url,
            "Admin": f"{admin[0]} / {admin[1]}",
            "Data and logs": str(home),
        }
        self._console.print(f"\n[bold green]GoWebbo is ready[/] [dim]after {seconds:.1f} s[/]\n")
        for name, fact in facts.items():
            self._console.print(f"  [bold]{name:<13}[/]  {escape(fact)}")
        self._console.print(f"\n  Try it:\n\n{escape(_EXAMPLE.format(url=url))}\n")
        self._console.print("  Ctrl-C stops everything; the data stays.\n")

    def _show(self) -> None:
        if not self._console.is_terminal:
            return
        if self._status is None:
            self._status = self._console.status("")
            self._status.start()
        if self._doing:
            self._status.update(escape(", ".join(self._doing) + " …"))
        else:
            self._status.stop()
            self._status = None
