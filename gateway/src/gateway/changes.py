"""What changed elsewhere: polls a service's `/internal/changes` every second and hands on what it tells.

One mechanism for revoked sessions, suspended practices and moved shards. While polls fail, what is cached is still
good for some minutes.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from gateway.asking import Asker, NoAnswerError
from shared.changes import MAX_CHANGES
from shared.logs import get_logger

POLL_EVERY_S = 1.0
POLL_TIMEOUT_S = 2.0
STALE_AFTER_S = 15 * 60.0
"""Without a successful poll for this long, nothing cached is trusted any more."""

Change = dict[str, Any]
_log = get_logger()


class Listener(Protocol):
    """Who is told of changes."""

    def start_over(self, changes: Sequence[Change]) -> None:
        """Forget everything; these are all the changes that still matter."""

    def apply(self, changes: Sequence[Change]) -> None:
        """These are new."""


class ChangeFeed:
    """Follows one service's changes for one listener. The whole list is read at the start and every `reload_s`."""

    def __init__(
        self,
        asker: Asker,
        listener: Listener,
        *,
        service: str,
        reload_s: float = float("inf"),
        on_signing_key: Callable[[str], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_signing_key` is told which key the service signs tokens with, at each poll."""
        self._asker = asker
        self._listener = listener
        self._service = service
        self._reload_s = reload_s
        self._on_signing_key = on_signing_key
        self._clock = clock
        self._after: int | None = None
        self._loaded_at = float("-inf")
        self._good_at = float("-inf")
        self._failing = False

    @property
    def is_current(self) -> bool:
        """Whether the listener knows enough to be trusted."""
        return self._clock() - self._good_at < STALE_AFTER_S

    async def run(self) -> None:
        """Polls until cancelled."""
        while True:
            await self.poll()
            await asyncio.sleep(POLL_EVERY_S)

    async def poll(self) -> None:
        """Asks once. A failure is logged when it begins, and changes nothing that is known."""
        asked_at = self._clock()
        whole = self._after is None or asked_at - self._loaded_at >= self._reload_s
        try:
            changes, last, is_reset = await self._read_all(None if whole else self._after)
        except NoAnswerError:
            if not self._failing:
                _log.warning("changes_unavailable", upstream=self._service)
            self._failing = True
            return
        if whole or is_reset:
            self._listener.start_over(changes)
            self._loaded_at = asked_at
        elif changes:
            self._listener.apply(changes)
        if self._failing:
            _log.warning("changes_available_again", upstream=self._service)
        self._after, self._good_at, self._failing = last, asked_at, False

    async def _read_all(self, after: int | None) -> tuple[list[Change], int, bool]:
        """All changes behind a number, of however many answers: half of them would let the rest be forgotten."""
        changes, last, is_reset = await self._read(after)
        part = changes
        while len(part) >= MAX_CHANGES:
            part, last, again = await self._read(last)
            changes, is_reset = (part, True) if again else (changes + part, is_reset)
        return changes, last, is_reset

    async def _read(self, after: int | None) -> tuple[list[Change], int, bool]:
        target = "/internal/changes" if after is None else f"/internal/changes?after={after}"
        status, answer = await self._asker.get(target, timeout_s=POLL_TIMEOUT_S)
        if self._on_signing_key and isinstance(answer, dict) and isinstance(kid := answer.get("signing_key"), str):
            await self._on_signing_key(kid)
        return *_parse(status, answer), bool(answer.get("reset"))


def _parse(status: int, answer: Any) -> tuple[list[Change], int]:
    if status == 200 and isinstance(answer, dict):  # noqa: PLR2004 - HTTP's OK
        changes, last = answer.get("changes"), answer.get("last")
        if isinstance(changes, list) and all(isinstance(c, dict) for c in changes) and isinstance(last, int):
            return changes, last
    raise NoAnswerError
