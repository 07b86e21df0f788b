"""A service's process as the gateway sees it: the upstream with circuit breaker and the one retry that is allowed."""

from asyncio import CancelledError
from collections.abc import Sequence

from gateway.breaker import CircuitBreaker
from gateway.connections import KeepAliveUpstream
from gateway.exceptions import OverloadedError
from gateway.exchange import Connection, Taker
from gateway.upstream import Answer, Body, BrokenError, BusyError, UnreachableError, UnsendableError
from shared.context import Header
from shared.errors import MalformedRequestError, UnavailableError, UpstreamFailedError

RETRY_AFTER_S = 2
RETRY_SHARE = 0.2
"""At most this share of the calls may be retried, so that retries don't bury a service that is struggling."""
MAX_SAVED_RETRIES = 10.0


class Line:
    """Calls one process of a service and turns what goes wrong into errors that a client may see."""

    def __init__(self, upstream: KeepAliveUpstream) -> None:
        self._upstream = upstream
        self.breaker = CircuitBreaker()
        self._retries = MAX_SAVED_RETRIES

    def begin(self, method: str, target: bytes, lines: bytes, *, body: bytes, taker: Taker) -> Connection | None:
        """See KeepAliveUpstream.begin; None also while the circuit is open. `taker` reports to `breaker`."""
        return None if self.breaker.is_open else self._upstream.begin(method, target, lines, body=body, taker=taker)

    def succeeded(self) -> None:
        """A call that was begun got its answer."""
        self.breaker.succeeded()
        self._retries = min(self._retries + RETRY_SHARE, MAX_SAVED_RETRIES)

    async def call(
        self,
        method: str,
        target: bytes,
        *,
        headers: Sequence[Header],
        context: bytes = b"",
        body: Body,
        is_repeated: bool = False,
    ) -> Answer:
        """The service's answer. Raises UnavailableError, UpstreamFailedError or MalformedRequestError.

        A caller that cancels because of its time limit calls `breaker.failed` itself. `is_repeated`: it was begun and
        broke, and `may_repeat` allowed this second try.
        """
        self.breaker.admit()
        self._retries = min(self._retries + RETRY_SHARE, MAX_SAVED_RETRIES)
        try:
            try:
                answer = await self._upstream.call(method, target, headers=headers, context=context, body=body)
            except BrokenError:
                if is_repeated or not self.may_repeat(method, body):
                    raise
                answer = await self._upstream.call(method, target, headers=headers, context=context, body=body)
        except UnsendableError as fault:
            self.breaker.undecided()
            raise MalformedRequestError from fault
        except BusyError as fault:
            self.breaker.undecided()
            raise OverloadedError(retry_after_s=RETRY_AFTER_S) from fault
        except UnreachableError as fault:
            self.breaker.failed()
            raise UnavailableError(retry_after_s=RETRY_AFTER_S) from fault
        except BrokenError as fault:
            self.breaker.failed()
            raise UpstreamFailedError(retry_after_s=RETRY_AFTER_S) from fault
        except (CancelledError, Exception):
            self.breaker.undecided()
            raise
        self.breaker.succeeded()
        return answer

    def may_repeat(self, method: str, body: Body) -> bool:
        """Whether what broke does no harm twice: a GET on a connection that the service had just closed (RFC 9110)."""
        if method != "GET" or body or self._retries < 1:
            return False
        self._retries -= 1
        return True

    async def close(self) -> None:
        """Closes the connections."""
        await self._upstream.close()
