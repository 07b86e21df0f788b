"""Failed log-ins are counted here, by account and by address, whether or not the account exists.

In the memory of this process, and in Redis for all replicas (`shared_failures.py`): both have to let a try begin, so
that a Redis that is away or emptied gives nobody more tries here.
"""

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from auth_service.counting import Counting
from auth_service.exceptions import HashingBusyError, TooManyFailuresError, WrongCredentialsError
from auth_service.shared_failures import Counted, SharedFailures
from shared.addresses import limited_as

FAILURES_PER_ACCOUNT = 5
WINDOW_S = 600.0
FIRST_BLOCK_S = 30.0
LONGEST_BLOCK_S = 900.0
MAX_KEYS = 50_000
"""For each kind; the one untouched for the longest time is forgotten first."""
MAX_WAIT_S = 8.0
"""For the outcome of the tries before."""
_RETRY_AFTER_S = 5


class LoginThrottle:
    """Lets as many tries at a password begin as may still fail; the others wait for their outcome."""

    def __init__(
        self,
        *,
        failures_per_address: int,
        shared: Counting | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without `shared` this process counts alone."""
        self._accounts = _FailureCounter(FAILURES_PER_ACCOUNT, clock)
        self._addresses = _FailureCounter(failures_per_address, clock)
        self._failures_per_address = failures_per_address
        self._shared = shared and SharedFailures(
            shared, window_s=WINDOW_S, first_block_s=FIRST_BLOCK_S, longest_block_s=LONGEST_BLOCK_S
        )

    @asynccontextmanager
    async def attempt(self, account: str, address: str) -> AsyncIterator[None]:
        """One try; a WrongCredentialsError inside is a failure. Raises TooManyFailuresError, HashingBusyError."""
        source = limited_as(address)
        async with AsyncExitStack() as tries:
            await tries.enter_async_context(self._addresses.attempt(source))
            await tries.enter_async_context(self._accounts.attempt(account))
            if self._shared:
                counted = (
                    Counted("address", source, self._failures_per_address, is_forgiven=False),
                    Counted("account", account, FAILURES_PER_ACCOUNT, is_forgiven=True),
                )
                await tries.enter_async_context(self._shared.attempt(counted, wait_s=MAX_WAIT_S))
            yield
        # only the account: whoever knows one password must not get free tries at others
        self._accounts.forgive(account)


@dataclass(slots=True, eq=False)
class _Record:
    failed_at: deque[float] = field(default_factory=deque)
    strikes: int = 0
    blocked_until: float = 0.0
    in_flight: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class _FailureCounter:
    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()

    @asynccontextmanager
    async def attempt(self, key: str) -> AsyncIterator[None]:
        record = self._record(key)
        await self._enter(record)
        try:
            yield
        except WrongCredentialsError:
            self._note_failure(record)
            raise
        finally:
            record.in_flight -= 1
            record.changed.set()
            record.changed = asyncio.Event()

    def forgive(self, key: str) -> None:
        """Forgets the failures of a key."""
        record = self._records.get(key)
        if record:
            record.failed_at.clear()
            record.strikes = 0

    async def _enter(self, record: _Record) -> None:
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                while record.in_flight >= self._tries_left(record):
                    await record.changed.wait()
        except TimeoutError as fault:
            raise HashingBusyError(retry_after_s=_RETRY_AFTER_S) from fault
        record.in_flight += 1

    def _tries_left(self, record: _Record) -> int:
        now = self._clock()
        if now < record.blocked_until:
            raise TooManyFailuresError(retry_after_s=math.ceil(record.blocked_until - now))
        if now > record.blocked_until + WINDOW_S:
            record.strikes = 0
        while record.failed_at and record.failed_at[0] < now - WINDOW_S:
            record.failed_at.popleft()
        return 1 if record.strikes else max(1, self._limit - len(record.failed_at))

    def _note_failure(self, record: _Record) -> None:
        """After a block each further failure blocks at once, twice as long."""
        now = self._clock()
        record.failed_at.append(now)
        if record.strikes or len(record.failed_at) >= self._limit:
            record.blocked_until = now + min(FIRST_BLOCK_S * 2**record.strikes, LONGEST_BLOCK_S)
            record.strikes = min(record.strikes + 1, 10)
            record.failed_at.clear()

    def _record(self, key: str) -> _Record:
        record = self._records.setdefault(key, _Record())
        self._records.move_to_end(key)
        if len(self._records) > MAX_KEYS:
            idle = next((name for name, kept in self._records.items() if not kept.in_flight), key)
            if idle != key:
                del self._records[idle]
        return record
