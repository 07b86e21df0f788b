"""The connection budget of one shard server: so many slots; the longest idle connection gives way; turns are kept."""

import asyncio
from collections import OrderedDict, deque

from patient_service.shard_connection import ShardConnection


class ServerSlots:
    """Counts the connections of this process to one server, whichever practice they belong to."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = 0
        self.evicted = 0
        self._idle: OrderedDict[ShardConnection, float] = OrderedDict()
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def contested(self) -> bool:
        """Whether a practice waits for a slot."""
        return bool(self._waiting)

    @property
    def idle(self) -> int:
        """Connections that nobody uses now."""
        return len(self._idle)

    @property
    def at_work(self) -> int:
        """Connections that somebody uses or opens."""
        return self.used - len(self._idle)

    def idle_since(self, connection: ShardConnection) -> float:
        """When it was used last; it is idle."""
        return self._idle[connection]

    async def take(self) -> None:
        """Takes a slot; the longest idle connections are closed for it if need be. Waits in turn, without a limit."""
        while self.used >= self.budget and self._idle and not self._waiting:
            self.evict_longest_idle()
        if self.used < self.budget and not self._waiting:
            self.used += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.free()
            elif turn in self._waiting:  # else it was passed over already
                self._waiting.remove(turn)
            raise

    def free(self) -> None:
        """Gives a slot back."""
        self.used -= 1
        while self._waiting and self.used < self.budget:
            turn = self._waiting.popleft()
            if not turn.done():
                self.used += 1
                turn.set_result(None)

    def rest(self, connection: ShardConnection, *, now: float) -> None:
        """Notes that nobody uses this connection from now on: it may be closed for another practice."""
        self._idle[connection] = now

    def wake(self, connection: ShardConnection) -> None:
        """Notes that somebody uses it, or that it is closed."""
        self._idle.pop(connection, None)

    def evict_longest_idle(self) -> None:
        """Closes the connection that was not used for the longest time, if any is idle."""
        if self._idle:
            connection, _ = self._idle.popitem(last=False)
            self.evicted += 1
            connection.close()

    def evict_idle_since(self, before: float) -> None:
        """Closes every connection that was not used since then."""
        while self._idle and next(iter(self._idle.values())) < before:
            self.evict_longest_idle()
