"""What runs now: written by `up` at every change, read by `status`, by the operator's commands and by the next `up`."""

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from gowebbo_stack.home import Home, is_alive, started_at
from gowebbo_stack.supervision import Child


class Register:
    """Keeps the state file true."""

    def __init__(self, home: Home, entries: Mapping[str, Mapping[str, str]], **facts: Any) -> None:
        """`entries` are the lines of `status` without pids; `facts` stand in the state file as they are."""
        self._home = home
        self._entries = entries
        self._facts = facts
        self._supervisor = _identity(os.getpid())
        self._children: list[Child] = []
        self.ready = False

    def add(self, child: Child) -> None:
        """Take a child into the account."""
        self._children.append(child)

    def write(self) -> None:
        """Write the state of this moment."""
        processes = [
            {"name": child.program.name, "entry": child.program.entry or child.program.name} | _identity(child.pid)
            for child in self._children
        ]
        state = {"supervisor": self._supervisor, "ready": self.ready, "entries": self._entries, "processes": processes}
        with contextlib.suppress(OSError):  # a full disk must not end the supervision
            self._home.write_state(state | self._facts)


def _identity(pid: int | None) -> dict[str, Any]:
    return {"pid": pid, "started": started_at(pid) if pid else None}


def status_of(home: Home) -> dict[str, dict[str, Any]] | None:
    """Return every entry with its pid (`pids` where it has several), or None when no stack runs on this home."""
    state = home.running()
    if state is None:
        return None
    pids: dict[str, list[int | None]] = {name: [] for name in state["entries"]}
    for process in state["processes"]:
        alive = is_alive(process["pid"], process["started"])
        pids.setdefault(process["entry"], []).append(process["pid"] if alive else None)
    return {
        name: {**entry, **({"pids": pids[name]} if len(pids[name]) > 1 else {"pid": next(iter(pids[name]), None)})}
        for name, entry in state["entries"].items()
    }
