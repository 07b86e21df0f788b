"""How often one address may ask for what is dear: sign-ups, which cost a database, and mails.

In the memory of one process.
"""

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from auth_service.exceptions import TooManyCallsError
from shared.addresses import limited_as

WINDOW_S = 3600.0
MAX_ADDRESSES = 50_000
"""The one unseen for the longest time is forgotten first."""


class AddressLimit:
    """Counts by address, over an hour. `per_address` is 0 where nothing is limited."""

    def __init__(self, *, per_address: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_address = per_address
        self._clock = clock
        self._begun: OrderedDict[str, deque[float]] = OrderedDict()

    def admit(self, address: str) -> None:
        """Lets a call begin. Raises TooManyCallsError."""
        if not self._per_address:
            return
        now = self._clock()
        key = limited_as(address)
        begun = self._begun.setdefault(key, deque())
        self._begun.move_to_end(key)
        while begun and begun[0] <= now - WINDOW_S:
            begun.popleft()
        if len(begun) >= self._per_address:
            raise TooManyCallsError(retry_after_s=max(1, math.ceil(begun[0] + WINDOW_S - now)))
        begun.append(now)
        if len(self._begun) > MAX_ADDRESSES:
            self._begun.popitem(last=False)
