"""When calls must be over. All have the same time, so the one that began first is due first: one timer serves all.

`asyncio.timeout` sets and cancels a timer for each call, which took 9 of the gateway's 70 µs for a call; this takes 2.
"""

import asyncio
from types import TracebackType
from typing import Protocol, Self


class Timed(Protocol):
    """What must be over by a time of the loop's."""

    ends: float

    def strike(self) -> None:
        """It is that time."""


class Deadline:
    """One task's call, as a context manager around it: raises TimeoutError when the call was ended by it."""

    __slots__ = ("_cancelling", "_deadlines", "_has_struck", "_task", "_timer", "ends", "is_abandoned")

    def __init__(self, deadlines: "Deadlines", task: "asyncio.Task[object]") -> None:
        self._deadlines = deadlines
        self._task = task
        self._cancelling = task.cancelling()
        self._has_struck = False
        self._timer: asyncio.TimerHandle | None = None
        self.ends = 0.0
        self.is_abandoned = False

    def abandon(self) -> None:
        """Ends the call now: nobody waits for it any more."""
        self.is_abandoned = True
        self.strike()

    def strike(self) -> None:
        """Ends the call. Being one way to cancel it, not two, it never cancels a second time."""
        if not self._has_struck:
            self._has_struck = True
            self._task.cancel()

    def postpone(self, seconds: float) -> None:
        """Gives the call this much time from now on."""
        self.end_at(asyncio.get_running_loop().time() + seconds)

    def end_at(self, ends: float) -> None:
        """Gives the call a time of its own, of the loop's."""
        self._deadlines.forget(self)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(ends, self.strike)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: TracebackType | None) -> None:
        self._deadlines.forget(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._has_struck and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from fault


class Deadlines:
    """Of all calls that have begun and not ended. Lives in one event loop."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: dict[Timed, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, *, ends: float | None = None) -> Deadline:
        """The running task's, to be entered at once. `ends` is that of a call which began before."""
        task = asyncio.current_task(self._loop)
        assert task is not None
        deadline = Deadline(self, task)
        if ends is None:
            self.add(deadline)
        else:
            deadline.end_at(ends)
        return deadline

    def add(self, call: Timed) -> None:
        """A call that has no task begins now."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        call.ends = loop.time() + self._limit_s
        self._open[call] = None
        if self._timer is None:
            self._timer = loop.call_at(call.ends, self._check)

    def forget(self, deadline: Timed) -> None:
        """The call has ended, or has a time of its own from now on."""
        self._open.pop(deadline, None)

    def _check(self) -> None:
        assert self._loop is not None
        now, self._timer = self._loop.time(), None
        while self._open:
            first = next(iter(self._open))
            if first.ends > now:
                self._timer = self._loop.call_at(first.ends, self._check)
                return
            del self._open[first]
            first.strike()
