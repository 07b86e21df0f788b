"""How many calls of one practice are carried at once: a flood of one waits for itself, not for all the others.

A call that finds its practice's share taken waits in the practice's own line. Refused at once, a client that tries
again at once would have the gateway do nothing but refuse: 320 such clients cost their neighbours seconds.
"""

import asyncio
from collections import OrderedDict

from gateway.exceptions import PracticeOverloadedError

WAIT_S = 1.5
"""For a place; refused then, so within two seconds."""
RETRY_AFTER_S = 1


class PracticeShares:
    """Counts the calls under way. Anonymous callers and the admin have no practice and aren't counted."""

    def __init__(self, limit: int, *, wait_s: float = WAIT_S) -> None:
        self._limit = limit
        self._wait_s = wait_s
        self._under_way: dict[str, int] = {}
        self._waiting: dict[str, OrderedDict[asyncio.Future[None], None]] = {}

    def enter(self, practice_id: str) -> bool:
        """Whether a call may begin now; `leave` follows. False: `wait` for a place."""
        count = self._under_way.get(practice_id, 0)
        if count >= self._limit and practice_id:
            return False
        self._under_way[practice_id] = count + 1
        return True

    async def wait(self, practice_id: str) -> None:
        """Lets a call begin when an earlier one of the practice is over. Raises PracticeOverloadedError."""
        line = self._waiting.setdefault(practice_id, OrderedDict())
        place = asyncio.get_running_loop().create_future()
        line[place] = None
        try:
            async with asyncio.timeout(self._wait_s):
                await place
        except BaseException as fault:
            if not place.cancelled():  # it was given to a call that goes away
                self.leave(practice_id)
            elif line.pop(place, place) is None and not line:
                del self._waiting[practice_id]
            if isinstance(fault, TimeoutError):
                raise PracticeOverloadedError(retry_after_s=RETRY_AFTER_S) from None
            raise

    def leave(self, practice_id: str) -> None:
        """A call that had entered is over; the one that waits longest takes its place."""
        line = self._waiting.get(practice_id)
        while line:
            place, _ = line.popitem(last=False)
            if not line:
                del self._waiting[practice_id]
            if not place.done():
                place.set_result(None)
                return
        count = self._under_way[practice_id] - 1
        if count:
            self._under_way[practice_id] = count
        else:
            del self._under_way[practice_id]
