"""Failed log-ins, counted by address. Pure: the clock is given. Bounded, since addresses come from outside."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from shared.addresses import limited_as

WINDOW_S = 600.0
FIRST_PAUSE_S = 30.0
LONGEST_PAUSE_S = 900.0
MAX_ADDRESSES = 10_000


@dataclass(slots=True)
class _Failures:
    count: int
    last_at: float
    pause_s: float = 0.0


class FailureThrottle:
    """After `limit` failures within WINDOW_S an address pauses for 30 s, doubled by each further failure to 15 min."""

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def wait_s(self, address: str) -> int:
        """Whole seconds this address has to wait, 0 if it needn't."""
        found = self._failures.get(limited_as(address))
        return max(0, ceil(found.last_at + found.pause_s - self._clock())) if found else 0

    def failed(self, address: str) -> None:
        """Counts a failure."""
        source, now = limited_as(address), self._clock()
        found = self._failures.pop(source, None)
        if found is None or now - found.last_at > max(WINDOW_S, found.pause_s):
            found = _Failures(0, now)
        found.count, found.last_at = found.count + 1, now
        if found.count >= self._limit:
            found.pause_s = min(found.pause_s * 2 or FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._failures[source] = found
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forgets an address's failures."""
        self._failures.pop(limited_as(address), None)
