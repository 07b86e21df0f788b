"""Whether a failing service is left alone for a while. Pure: the clock is given, nothing is awaited."""

import time
from collections.abc import Callable
from math import ceil

from gateway.exceptions import CircuitOpenError

FAILURES_TO_OPEN = 5
PAUSE_S = 2.0
"""Short: a service that was restarted is back within seconds, and one probe a pause costs nothing."""


class CircuitBreaker:
    """Opens after some failures in a row; then one probe a pause is let through until one succeeds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._closed_again_at = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether calls are being refused."""
        return self._failures >= FAILURES_TO_OPEN

    def admit(self) -> None:
        """Lets a call through, or raises CircuitOpenError. Whoever was let through reports one of the three below."""
        if not self.is_open:
            return
        wait_s = self._closed_again_at - self._clock()
        if wait_s > 0 or self._probing:
            raise CircuitOpenError(retry_after_s=max(1, ceil(wait_s)))
        self._probing = True

    def succeeded(self) -> None:
        """The service answered, whatever it said."""
        self._failures = 0
        self._probing = False

    def failed(self) -> None:
        """The service couldn't be reached, broke off or was too slow."""
        self._failures += 1
        self._probing = False
        self._closed_again_at = self._clock() + PAUSE_S

    def undecided(self) -> None:
        """The call ended without telling anything about the service: the client went away."""
        self._probing = False
