"""Whether a request's client is still there: the edge knows, and says so without being asked.

ASGI's way is a task for each request that waits in `receive`; this costs two assignments.
"""

from collections.abc import Callable

EXTENSION = "gowebbo.presence"
"""Where a request's scope has it, among its extensions."""


class Presence:
    """Of one client's connection, which carries one request at a time."""

    __slots__ = ("_watcher", "is_gone")

    def __init__(self) -> None:
        self.is_gone = False
        self._watcher: Callable[[], None] | None = None

    def watch(self, watcher: Callable[[], None] | None) -> None:
        """Calls `watcher` when the client goes away; None ends the watch."""
        self._watcher = watcher

    def end(self) -> None:
        """The connection is gone."""
        self.is_gone = True
        if self._watcher:
            self._watcher()
