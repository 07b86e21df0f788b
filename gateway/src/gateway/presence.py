"""Whether a request's client is still there: the edge knows, and says so without being asked.

ASGI's way is a task for each request that waits in `receive`; this costs two assignments.
"""

from collections.abc import Callable

EXTENSION = "gowebbo.presence"
"""Where a request's scope has it, among its extensions."""


class Presence:
    """Of one client's connection, which carries one request at a time."""

    __slots__ = ("_is_gone", "_watcher")

    def __init__(self) -> None:
        self._is_gone = False
        self._watcher: Callable[[], None] | None = None

    def watch(self, watcher: Callable[[], None] | None) -> None:
        """Calls `watcher` when the client goes away, at once if it is gone; None ends the watch."""
        self._watcher = watcher
        if self._is_gone and watcher:
            watcher()

    def end(self) -> None:
        """The connection is gone."""
        self._is_gone = True
        if self._watcher:
            self._watcher()
