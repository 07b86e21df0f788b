"""One connection in psycopg2's asynchronous mode: connect, execute one statement, cancel, close. Nothing of tenancy.

A statement belongs to one caller. If that caller goes away, the connection stays `busy` until the statement has ended:
nobody may use it before, and nobody ever gets the rows of another.
"""

import asyncio
import contextlib
import re
import select
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self
from uuid import UUID

import psycopg2
from psycopg2 import extensions

from patient_service.libpq import CancelRequest, Polled, connect_sqlstate, report_only_sqlstate

STATEMENT_LIMIT_S = 7.0
"""The server ends statements after 5 s itself: one that takes longer than this says that it can't be reached."""
SETTLE_S = 0.25
"""An abandoned statement may end by itself so long; then it is cancelled."""
CANCEL_LIMIT_S = 2.0

_RESET = select.POLLERR | select.POLLHUP
_PLAIN = re.compile(r"[\w .,+@()/:-]*")
"""Letters of any script, digits, and signs that mean nothing in an SQL literal."""
_TEXT_OID = 25
_TEXT_AS_BYTES = extensions.new_type((_TEXT_OID,), "TEXT_AS_BYTES", extensions.BYTES)

Parameters = Mapping[str, object] | Sequence[object]
"""What psycopg2 takes; in a dict also UUIDs, if there are only numbers and plain words beside them."""
Row = tuple[Any, ...]
FutureRows = asyncio.Future[list[Row]]


class Prepared(NamedTuple):
    """A statement that a session prepares when it first executes it: planning a list takes longer than reading it."""

    name: str
    preparation: str
    execution: str
    is_write: bool = False


Statement = str | Prepared


class ConnectError(Exception):
    """No connection came about. `sqlstate` is the server's, None when no server answered."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__(sqlstate or "unreachable")
        self.sqlstate = sqlstate


class ShardConnection:
    """A connection that is open. Values of type `text` come as UTF-8 bytes."""

    def __init__(self, raw: extensions.connection) -> None:
        """Takes over a connection that is ready; use `connect`."""
        extensions.register_type(_TEXT_AS_BYTES, raw)
        self._raw = raw
        self._fd = raw.fileno()
        self._loop = asyncio.get_running_loop()
        self._rows: FutureRows | None = None
        self._is_kept_back = self._is_beginning = False
        self._cursor: extensions.cursor | None = None
        self._prepared: set[str] = set()
        self._preparing: str | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._limit_at = 0.0
        self._readable = select.poll()
        self._readable.register(self._fd, select.POLLIN)
        self.max_connections = 0
        """What its server allows in all, once whoever opened it has asked."""
        self.on_close: Callable[[], None] = _nothing
        self.on_free: Callable[[], None] = _nothing
        # Watched also while idle: a connection that the server ends is known to be closed at once.
        self._loop.add_reader(self._fd, self._read_on)

    @classmethod
    async def connect(cls, parameters: Mapping[str, Any]) -> Self:
        """Opens a connection with libpq's parameters; addresses must be numeric. Raises ConnectError.

        Sets no time limit: cancel it, and nothing stays behind.
        """
        raw = None
        try:
            raw = psycopg2.connect(**parameters, async_=True)
            report_only_sqlstate(raw)
            while (state := raw.poll()) != extensions.POLL_OK:
                await _ready(raw.fileno(), writing=state == extensions.POLL_WRITE)
            return cls(raw)
        except psycopg2.Error as fault:
            if raw is not None:
                raw.close()
            raise ConnectError(connect_sqlstate(fault)) from None
        except BaseException:
            if raw is not None:
                raw.close()
            raise

    @property
    def busy(self) -> bool:
        """Whether a statement has not ended yet."""
        return self._rows is not None

    @property
    def closed(self) -> bool:
        """Whether it is of no use any more."""
        return bool(self._raw.closed)

    def still_open(self) -> bool:
        """Whether the server has not ended an idle connection, as far as that has arrived. Costs no round trip."""
        if self._fd >= 0 and self._readable.poll(0):
            for _ in range(2):  # the server's farewell, then the end
                if not self.closed:
                    self._advance()
        return not self.closed

    async def fetch(self, statement: Statement, parameters: Parameters) -> list[Row]:
        """The rows of one statement. Raises psycopg2.Error; its `pgcode` is None if the connection is lost."""
        rows: FutureRows = self._loop.create_future()
        self.begin(statement, parameters, rows)
        return await rows

    def begin(self, statement: Statement, parameters: Parameters, rows: FutureRows) -> bool:
        """Sends a statement; `rows` will be its rows, or its fault as `fetch` raises it.

        True: `on_free` is called when the statement has ended, before whoever awaits `rows` goes on, so that another
        one can be on its way to the server meanwhile. False: the answer was there at once, and nobody is told. Raises
        what can't be sent, and stays free then.
        """
        assert not self.busy
        text, preparing = self._text_of(statement)
        literals = _literals(parameters)
        try:
            cursor = self._raw.cursor()
            if literals is None:
                cursor.execute(text, parameters)
            else:
                cursor.execute(text % literals)
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            self.close()  # whatever psycopg2 says of it: a connection that can't be written to is lost
            raise
        self._preparing = preparing
        self._rows = rows
        self._cursor = cursor  # kept until drained: the connection itself holds it only weakly
        self._is_beginning = True
        self._advance()
        self._is_beginning = False
        self._limit_at = self._loop.time() + STATEMENT_LIMIT_S
        if self._limit is None:
            self._limit = self._loop.call_at(self._limit_at, self._check_limit)
        return self.busy

    def carries(self, rows: FutureRows) -> bool:
        """Whether the statement of these rows hasn't ended yet."""
        return self._rows is rows

    def keep_back(self) -> None:
        """`on_free` isn't called any more until `settle` is through."""
        self._is_kept_back = True

    def _check_limit(self) -> None:
        """Ends a statement that takes too long. One timer serves many statements: each its own costs 2 µs."""
        self._limit = None
        if not self.busy:
            return
        if self._loop.time() >= self._limit_at:
            self.close()
        else:
            self._limit = self._loop.call_at(self._limit_at, self._check_limit)

    def _text_of(self, statement: Statement) -> tuple[str, str | None]:
        """What is sent, and the name of what it prepares."""
        if isinstance(statement, str):
            return statement, None
        if statement.name in self._prepared:
            return statement.execution, None
        return f"{statement.preparation}; {statement.execution}", statement.name

    async def settle(self) -> None:
        """Waits until an abandoned statement has ended; cancels and closes if that takes long."""
        self.keep_back()
        try:
            if await self._ends_within(SETTLE_S):
                self._is_kept_back = False
                return
            async with asyncio.timeout(CANCEL_LIMIT_S):
                await _cancel_statement(self._raw)
            await self._ends_within(CANCEL_LIMIT_S)
        except TimeoutError:
            pass
        except BaseException:
            self.close()
            raise
        # Also when it ended: the request may arrive late and would hit the next statement.
        self.close()

    async def _ends_within(self, limit_s: float) -> bool:
        if self._rows is None:
            return True
        self._rows = rows = self._loop.create_future()
        rows.add_done_callback(asyncio.Future.exception)  # looked at: whom it concerned is gone
        await asyncio.wait((rows,), timeout=limit_s)
        return self._rows is None

    def close(self) -> None:
        """Ends the connection, and a statement in progress with an error. May be called twice."""
        self._end(psycopg2.OperationalError())

    def _advance(self) -> None:
        """Lets psycopg2 read and write what can be read and written now."""
        try:
            state = self._raw.poll()
        except psycopg2.Error as fault:
            self._end(fault)
            return
        if state == extensions.POLL_WRITE:
            self._loop.add_writer(self._fd, self._write_on)
        elif state == extensions.POLL_OK and self._rows is not None:
            self._end(None)

    def _read_on(self) -> None:
        """Goes on when something has arrived.

        uvloop's libuv tells of a connection that was reset once and stops watching it: all that is left is read now,
        to the end, or nobody would learn of it.
        """
        carried = self._rows
        self._advance()
        if carried is not None and not self.carries(carried):
            return  # as a rule; a reset in the same moment is seen by `still_open`
        while self._fd >= 0 and any(event & _RESET for _, event in self._readable.poll(0)):
            self._advance()

    def _write_on(self) -> None:
        self._loop.remove_writer(self._fd)
        self._advance()

    def _end(self, fault: Exception | None) -> None:
        rows, self._rows = self._rows, None
        cursor, self._cursor = self._cursor, None
        preparing, self._preparing = self._preparing, None
        found: list[Row] = []
        if fault is None:
            try:
                found = cursor.fetchall() if cursor and cursor.description else []
            except Exception as unreadable:  # noqa: BLE001 - raised where the rows are awaited
                fault = unreadable
                self._close()
            if preparing is not None:
                self._prepared.add(preparing)
        elif getattr(fault, "pgcode", None) is None or self._raw.closed or preparing is not None:
            self._close()  # lost; or nobody knows whether the statement was prepared before it failed
        if rows is None:
            return
        if not rows.done():
            if fault is None:
                rows.set_result(found)
            else:
                rows.set_exception(fault)
        if self._fd >= 0 and not self._is_kept_back and not self._is_beginning:
            self.on_free()

    def _close(self) -> None:
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._fd = -1
        if self._limit is not None:
            self._limit.cancel()
        self._raw.close()
        self.on_close()


def _literals(parameters: Parameters) -> dict[str, str] | None:
    """Numbers, UUIDs and plain words as SQL, in which nothing can need escaping; None if anything else is among them.

    psycopg2 asks the connection how to write each: 5.5 µs for a list, 7.8 for a new patient; this takes 1.9 and 2.6.
    """
    if not isinstance(parameters, dict):
        return None
    literals = {}
    for name, value in parameters.items():
        if type(value) is UUID:
            literals[name] = f"'{value}'"
        elif type(value) is int:
            literals[name] = str(value)
        elif type(value) is str and _PLAIN.fullmatch(value):
            literals[name] = f"'{value}'"
        else:
            return None
    return literals


def _nothing() -> None:
    """Nobody wants to know."""


async def _cancel_statement(raw: extensions.connection) -> None:
    """Asks the server to end what the connection's backend does. Whether it was in time shows on the connection."""
    with contextlib.closing(CancelRequest(raw)) as request:
        while (state := request.poll()) in {Polled.READING, Polled.WRITING}:
            await _ready(request.fileno(), writing=state == Polled.WRITING)


async def _ready(fd: int, *, writing: bool) -> None:
    """Waits until a descriptor can be read from or written to. It is not watched any more afterwards."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    watch, unwatch = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    watch(fd, _wake, ready)
    try:
        await ready
    finally:
        unwatch(fd)


def _wake(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
