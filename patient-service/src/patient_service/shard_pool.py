"""Who may use which connection when: a fair queue for each practice, one opening at a time, within the budgets.

A practice with many calls waits in its own queue only: the next statement is on its way to the server before the
caller of the last one goes on. It has one connection, and spare ones while nobody else asks for anything: alone it is
served 1.6 times as fast with three of them, but beside others it would take from these. Where the budget is smaller
than the practices at work, each keeps its connection for a short turn and then queues again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import psycopg2

from patient_service.exceptions import (
    PracticeBusyError,
    ServerFullError,
    ShardUnavailableError,
    statement_error,
)
from patient_service.libpq import statement_sqlstate
from patient_service.server_slots import ServerSlots
from patient_service.servers import Server, Servers
from patient_service.shard_connection import FutureRows, Parameters, Prepared, Row, ShardConnection, Statement
from patient_service.shard_opening import Shard, ShardOpener
from shared.errors import ServiceError
from shared.logs import describe_fault, get_logger

OPEN_LIMIT_S = 5.0
"""For a slot, the network, authentication and the stamp together."""
TURN_S = 0.02
"""How long a practice keeps a contested connection: several times what opening one costs."""
FULL_PAUSES_S = (0.05, 0.1, 0.2, 0.4)
"""Between tries while the server itself has no connection free; one of ours is closed before the first.

One is enough if it was the server that was full. If it was the practice's own role that has too many connections (the
SQLSTATE is the same), closing those of others helps nobody.
"""
ALONE_S = 1.0
"""A practice is alone when no other one has called this process for so long."""
SPARE_WAITING = 4
"""So many calls of a practice wait before a spare one is opened for it: a moment's crowd isn't worth that."""
SPARE_PAUSE_S = 10.0
"""After a spare one that couldn't be opened."""
SPARE_IDLE_S = 60.0
EXPIRE_EVERY_S = 30.0
_log = get_logger()


class PoolLimits(NamedTuple):
    """What the settings say: connections and waiting calls of one practice, how long a call waits, idle time."""

    per_practice: int
    queue: int
    wait_s: float
    idle_s: float


class _Call:
    """A statement that somebody wants executed. It waits for a connection until `ends` (the loop's time) at most."""

    __slots__ = ("connection", "ends", "parameters", "rows", "statement")

    def __init__(self, statement: Statement, parameters: Parameters, rows: FutureRows) -> None:
        self.statement = statement
        self.parameters = parameters
        self.rows = rows
        self.ends = 0.0
        self.connection: ShardConnection | None = None


class _Lane:
    """A practice's connections and the calls that wait for one."""

    __slots__ = (
        "connections",
        "idle",
        "limit",
        "loop",
        "no_spare_before",
        "opening",
        "shard",
        "slots",
        "turn_ends",
        "waiting",
    )

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.loop = asyncio.get_running_loop()  # Python 3.11 asks for the process's id each time
        self.slots = _NO_SLOTS
        self.connections: set[ShardConnection] = set()
        self.idle: list[ShardConnection] = []
        self.waiting: deque[_Call] = deque()
        self.limit: asyncio.TimerHandle | None = None
        self.opening = 0
        self.turn_ends = self.no_spare_before = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """The signed context's names."""
        return self.shard.practice_id, str(self.shard.name)

    @property
    def size(self) -> int:
        """Connections there are or will be."""
        return len(self.connections) + self.opening

    @property
    def at_work(self) -> int:
        """Connections that aren't idle."""
        return len(self.connections) - len(self.idle)


_NO_SLOTS = ServerSlots(0)


class ShardPool:
    """Executes statements on practices' shards. Lives in one event loop."""

    def __init__(
        self, servers: Servers, opener: ShardOpener, *, limits: PoolLimits, budget: Callable[[int], int]
    ) -> None:
        """`budget` tells the slots for a server that allows so many connections in all."""
        self._servers = servers
        self._opener = opener
        self._limits = limits
        self._budget = budget
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_lane: _Lane | None = None
        self._shared_at = 0.0
        self._outdated: set[ShardConnection] = set()
        """Connections to a server's former address, which end with their statement."""
        servers.on_moved = self._leave
        self.slots: dict[str, ServerSlots] = {}
        self.opened = 0

    @property
    def waiting(self) -> int:
        """Calls that wait for a connection now."""
        return sum(len(lane.waiting) for lane in self._lanes.values())

    async def fetch(self, practice_id: str, shard: str, statement: Statement, parameters: Parameters) -> list[Row]:
        """The rows of one statement on the shard that the signed context names.

        Raises a ServiceError: of naming or opening the shard, PracticeBusyError, or what the statement's failure means.
        """
        lane = self._lanes.get((practice_id, shard))
        if lane is None:
            lane = self._lanes[practice_id, shard] = _Lane(Shard.of(practice_id, shard))
        if self._last_lane is not lane:
            self._last_lane, self._shared_at = lane, lane.loop.time()
        call = _Call(statement, parameters, lane.loop.create_future())
        connection = self._idle_connection(lane)
        while connection is not None and lane.waiting:  # who waits comes first
            self._pass_on(lane, connection)
            connection = self._idle_connection(lane)
        if connection is None:
            self._queue(lane, call)
        elif not _begin(connection, call):
            self._pass_on(lane, connection)
        try:
            return await call.rows
        except psycopg2.Error as fault:
            is_write = isinstance(statement, Prepared) and statement.is_write
            error = statement_error(fault, is_write=is_write)
            _log.warning("statement_failed", sqlstate=statement_sqlstate(fault), shard=shard, error=error.error)
            raise error from fault
        except asyncio.CancelledError:
            self._abandon(lane, call)
            raise

    async def expire(self) -> None:
        """Closes connections that were not used for long; runs as a task."""
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            now = asyncio.get_running_loop().time()
            for slots in self.slots.values():
                slots.evict_idle_since(now - self._limits.idle_s)
            before = now - SPARE_IDLE_S
            for lane in tuple(self._lanes.values()):
                while len(lane.connections) > 1 and lane.idle and lane.slots.idle_since(lane.idle[0]) < before:
                    lane.idle[0].close()

    async def close(self) -> None:
        """Closes every connection; calls in progress fail as unavailable."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in tuple(self._lanes.values()):
            _fail_waiting(lane, ShardUnavailableError())
            for connection in tuple(lane.connections):
                connection.close()

    def _idle_connection(self, lane: _Lane) -> ShardConnection | None:
        """A connection that nobody uses; none if it is a spare one that isn't to be used now."""
        if lane.at_work and not self._is_alone(lane):
            return None
        while lane.idle:
            connection = lane.idle.pop()
            lane.slots.wake(connection)
            if connection.still_open():
                return connection
        return None

    def _queue(self, lane: _Lane, call: _Call) -> None:
        """Lets a call wait in its practice's queue, first come first served. Raises PracticeBusyError."""
        if len(lane.waiting) >= self._limits.queue:
            raise PracticeBusyError
        self._lanes[lane.key] = lane  # again, if its only connection turned out to be closed just now
        call.ends = lane.loop.time() + self._limits.wait_s
        lane.waiting.append(call)
        self._grow(lane)
        if lane.limit is None:
            lane.limit = lane.loop.call_at(call.ends, _refuse_late, lane)

    def _abandon(self, lane: _Lane, call: _Call) -> None:
        """Nobody waits for a call any more: it leaves the queue, or its statement must end before the next begins."""
        connection = call.connection
        if call.rows.done() and not call.rows.cancelled():
            call.rows.exception()  # looked at: nobody else will
        if connection is None:
            with suppress(ValueError):  # it may have been passed over already
                lane.waiting.remove(call)
        elif connection.carries(call.rows):
            connection.keep_back()
            self._spawn(self._settle(lane, connection))

    def _pass_on(self, lane: _Lane, connection: ShardConnection) -> None:
        """Hands the connection to whoever is next: a call of this practice, or another practice by its slot."""
        if connection.closed:
            return
        if connection in self._outdated:
            connection.close()
            return
        now, slots = lane.loop.time(), lane.slots
        may_stay = now <= lane.turn_ends or not slots.contested
        if lane.at_work > 1:
            may_stay = self._is_alone(lane) and not slots.contested
        while lane.waiting and may_stay:
            call = lane.waiting.popleft()
            if not call.rows.done() and _begin(connection, call):
                return
            if connection.closed:
                return
        if slots.contested:
            connection.close()
            return
        lane.idle.append(connection)
        slots.rest(connection, now=now)

    async def _settle(self, lane: _Lane, connection: ShardConnection) -> None:
        await connection.settle()
        if not connection.closed:
            self._pass_on(lane, connection)

    def _grow(self, lane: _Lane) -> None:
        """Begins to open a connection if one is allowed and wanted."""
        if lane.waiting and not lane.opening and (not lane.connections or self._may_have_spare(lane)):
            lane.opening += 1
            self._spawn(self._open(lane))

    def _is_alone(self, lane: _Lane) -> bool:
        """Whether nobody else called lately, nor has anything under way on the practice's server."""
        return (
            self._last_lane is lane
            and lane.slots.at_work <= lane.at_work + lane.opening
            and lane.loop.time() - self._shared_at >= ALONE_S
        )

    def _may_have_spare(self, lane: _Lane) -> bool:
        """Whether one more would be used, and takes nothing that others may need."""
        slots = lane.slots
        return (
            len(lane.connections) < self._limits.per_practice
            and len(lane.waiting) >= SPARE_WAITING
            and self._is_alone(lane)
            and slots.used < slots.budget // 2
            and lane.loop.time() >= lane.no_spare_before
        )

    async def _open(self, lane: _Lane) -> None:
        connection, fault = None, None
        is_spare = bool(lane.connections)
        try:
            async with asyncio.timeout(OPEN_LIMIT_S):
                connection = await self._open_within_budget(lane, is_spare=is_spare)
        except ServiceError as known:
            fault = known
        except TimeoutError:
            fault = PracticeBusyError() if lane.slots.contested else ShardUnavailableError()
            self._spawn(self._servers.refresh())  # likewise: a former one may be silent
        except Exception as unknown:  # noqa: BLE001 - whoever waits must get an answer
            _log.error("shard_opening_failed", **describe_fault(unknown))
            fault = ServiceError()
        finally:
            lane.opening -= 1
        if connection is not None:
            self._admit(lane, connection)
            self._grow(lane)
        elif fault is not None and is_spare:
            lane.no_spare_before = lane.loop.time() + SPARE_PAUSE_S
            self._grow(lane)  # if the others were lost meanwhile, in earnest now
        elif fault is not None and not lane.connections:
            _fail_waiting(lane, fault)
        self._tidy(lane)

    async def _open_within_budget(self, lane: _Lane, *, is_spare: bool) -> ShardConnection | None:
        """A connection in a slot of its server; None if nobody waits for it any more. Nobody gives way to a spare."""
        server = await self._servers.find(lane.shard.name.server)
        slots = lane.slots = self._slots_of(server)
        for number, pause_s in enumerate((None,) if is_spare else (*FULL_PAUSES_S, None)):
            await slots.take()
            try:
                if not lane.waiting:
                    slots.free()
                    return None
                connection = await self._opener.open(server, lane.shard)
            except BaseException as fault:
                slots.free()
                if isinstance(fault, ShardUnavailableError):
                    self._spawn(self._servers.refresh())  # it may have a new address
                if not isinstance(fault, ServerFullError) or pause_s is None:
                    raise
            else:
                slots.budget = self._budget(connection.max_connections)
                return connection
            if number == 0:
                slots.evict_longest_idle()
            await asyncio.sleep(pause_s)
        raise ServerFullError

    def _admit(self, lane: _Lane, connection: ShardConnection) -> None:
        self.opened += 1
        lane.connections.add(connection)
        lane.turn_ends = lane.loop.time() + TURN_S
        connection.on_close = partial(self._forget, lane, connection)
        connection.on_free = partial(self._pass_on, lane, connection)
        if connection.closed:  # in the moment after its stamp was read, unnoticed by anybody
            self._forget(lane, connection)
        else:
            self._pass_on(lane, connection)

    def _forget(self, lane: _Lane, connection: ShardConnection) -> None:
        """A connection was closed, by whomever."""
        lane.connections.discard(connection)
        self._outdated.discard(connection)
        if connection in lane.idle:
            lane.idle.remove(connection)
        lane.slots.wake(connection)
        lane.slots.free()
        if lane.waiting and (spare := self._idle_connection(lane)):
            self._pass_on(lane, spare)
        self._grow(lane)
        self._tidy(lane)

    def _leave(self, key: str) -> None:
        """Uses no connection to a server's former address any longer: a writer that was replaced may still answer."""
        for lane in tuple(self._lanes.values()):
            if lane.shard.name.server == key:
                self._outdated.update(lane.connections)
                for connection in tuple(lane.idle):
                    connection.close()

    def _slots_of(self, server: Server) -> ServerSlots:
        """The server's; what tenant-service says of its size is good until the server says so itself."""
        slots = self.slots.get(server.key)
        if slots is None:
            slots = self.slots[server.key] = ServerSlots(self._budget(server.max_connections))
        return slots

    def _tidy(self, lane: _Lane) -> None:
        """Forgets a practice that has neither connections nor calls."""
        if not (lane.size or lane.waiting):
            self._lanes.pop(lane.key, None)

    def _spawn(self, deed: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(deed)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _begin(connection: ShardConnection, call: _Call) -> bool:
    """Sends a call's statement. False if the connection is free again: it couldn't be sent, or was answered at once."""
    call.connection = connection
    try:
        return connection.begin(call.statement, call.parameters, call.rows)
    except Exception as fault:  # noqa: BLE001 - raised where the call is
        if not call.rows.done():
            call.rows.set_exception(fault)
        if connection.closed:
            connection.close()  # so that its slot is free
        return False


def _refuse_late(lane: _Lane) -> None:
    """Refuses who waited too long. One timer for a practice: the first in turn is due first."""
    lane.limit = None
    while lane.waiting and lane.waiting[0].ends <= lane.loop.time():
        rows = lane.waiting.popleft().rows
        if not rows.done():
            rows.set_exception(PracticeBusyError())
    if lane.waiting:
        lane.limit = lane.loop.call_at(lane.waiting[0].ends, _refuse_late, lane)


def _fail_waiting(lane: _Lane, error: ServiceError) -> None:
    while lane.waiting:
        rows = lane.waiting.popleft().rows
        if not rows.done():
            rows.set_exception(type(error)())  # one each: a raised exception remembers where it went
