"""A time limit for the worker's main thread.

Celery's solo pool has none, and a socket's limit starts anew with each byte.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN_AFTER_S = 1.0
"""A library may swallow the first alarm (a connect that tries the next address), so it rings until it is heard."""


class DeadlineError(TimeoutError):
    """The time is over."""


def _ring(_signal: int, _frame: FrameType | None) -> None:
    raise DeadlineError("the time is over")


@contextmanager
def deadline(limit_s: float) -> Iterator[None]:
    """Raises DeadlineError inside the block when it takes longer. Main thread only, not to be nested."""
    before = signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s, _AGAIN_AFTER_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def shorten(limit_s: float) -> None:
    """Leaves a running deadline at most this much time; does nothing when none runs. For a process that has to stop."""
    remaining_s, _ = signal.getitimer(signal.ITIMER_REAL)
    if remaining_s > limit_s:
        signal.setitimer(signal.ITIMER_REAL, limit_s, _AGAIN_AFTER_S)
