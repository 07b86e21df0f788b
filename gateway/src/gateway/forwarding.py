"""One call through the gateway: sign, send, repeat once if the shard moved, stream the answer back.

The answer's bytes are never parsed. When the client goes away or time is up, the call to the service is cancelled once.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from starlette.types import Receive, Scope, Send

from gateway.affinity import place_of
from gateway.authentication import Authenticator
from gateway.bodies import RequestBody, linger
from gateway.deadlines import Deadline, Deadlines
from gateway.exceptions import AnswerCutError, ClientGoneError, RequestTimeoutError
from gateway.headers import CLOSE, Head, answer_headers
from gateway.line import RETRY_AFTER_S, Line
from gateway.presence import EXTENSION, Presence
from gateway.routes import Route, Service
from gateway.shares import PracticeShares
from gateway.short_calls import SHARD_MOVED, SMALL_BYTES, Begun
from gateway.upstream import Answer
from shared.context import REQUEST_ID_HEADER, Caller, ContextSigner
from shared.errors import UnavailableError, UpstreamTimeoutError

FAIR_SHARE = 0.5
"""Of a call's time: a service that had less of it, because of the client or other services, isn't to blame."""
STREAM_S = 15.0
"""An answer that has begun must be through by then: longer than any answer takes, short enough for slow readers."""


@dataclass(slots=True)
class Exchange:
    """What belongs to one call, and how far it got."""

    scope: Scope
    receive: Receive
    send: Send
    head: Head
    route: Route
    address: str
    begun: Begun | None = None
    """How far it came on the short way."""
    line: Line | None = None
    body: RequestBody | None = None
    asked_at: float = 0.0
    """When its turn with the service came, by the loop's time."""
    answered: bool = False


class Forwarder:
    """Carries calls to the services."""

    def __init__(
        self,
        lines: Mapping[Service, Sequence[Line]],
        *,
        authenticator: Authenticator,
        signer: ContextSigner,
        shares: PracticeShares,
        call_timeout_s: float,
    ) -> None:
        """`lines` are each service's processes."""
        self._lines = lines
        self._authenticator = authenticator
        self._signer = signer
        self._shares = shares
        self._deadlines = Deadlines(call_timeout_s)
        self._fair_s = FAIR_SHARE * call_timeout_s

    async def forward(self, exchange: Exchange) -> int:
        """Answers the client and returns the status.

        Raises ServiceError as long as nothing was answered, AnswerCutError afterwards, ClientGoneError when nobody
        waits any more.
        """
        presence: Presence = exchange.scope["extensions"][EXTENSION]
        begun = exchange.begun
        try:
            with self._deadlines.begin(ends=begun.ends if begun else None) as deadline:
                presence.watch(deadline.abandon)
                if begun and begun.answer:
                    return await self._finish(exchange, begun.practice_id, begun.answer, deadline)
                if presence.is_gone:
                    raise ClientGoneError
                if begun and begun.error:
                    raise begun.error
                return await self._carry(exchange, deadline)
        except TimeoutError as fault:
            if deadline.is_abandoned:
                raise ClientGoneError from None
            if exchange.answered:
                raise AnswerCutError from fault
            if exchange.line is None or exchange.body is None:  # only the gateway's own questions took the time
                raise UpstreamTimeoutError from fault
            if not exchange.body.is_read:  # the client's fault, which mustn't open the circuit
                raise RequestTimeoutError from fault
            had_s = asyncio.get_running_loop().time() - max(exchange.asked_at, exchange.body.read_at)
            if had_s >= self._fair_s:
                exchange.line.breaker.failed()
            raise UpstreamTimeoutError from fault
        finally:
            presence.watch(None)

    async def _carry(self, exchange: Exchange, deadline: Deadline) -> int:
        route, head, address = exchange.route, exchange.head, exchange.address
        caller = self._authenticator.known_caller(route, head, address)
        if caller is None:
            caller = await self._authenticator.caller(route, head, address)
        lines = self._lines[route.service]
        line = exchange.line = lines[place_of(caller.practice_id, len(lines))]
        body = exchange.body = RequestBody(exchange.receive, head, max_bytes=route.max_body_bytes)
        if not body.is_read:
            await body.fill()
        if not self._shares.enter(caller.practice_id):
            await self._shares.wait(caller.practice_id)
        exchange.asked_at = asyncio.get_running_loop().time()
        try:
            answer = await self._ask(exchange, line, caller, body)
        except BaseException:
            self._shares.leave(caller.practice_id)
            raise
        return await self._finish(exchange, caller.practice_id, answer, deadline)

    async def _finish(self, exchange: Exchange, practice_id: str, answer: Answer, deadline: Deadline) -> int:
        """Passes an answer on, which ends the call."""
        presence: Presence = exchange.scope["extensions"][EXTENSION]
        try:
            if presence.is_gone:
                raise ClientGoneError
            await self._pass_on(exchange, answer, deadline)
        finally:
            answer.close()
            self._shares.leave(practice_id)
        return answer.status

    async def _ask(self, exchange: Exchange, line: Line, caller: Caller, body: RequestBody) -> Answer:
        """The answer of the service; of the second try where the shard had moved (nothing was executed then)."""
        begun = exchange.begun
        if begun is None or not begun.has_moved:
            is_repeated = begun is not None and begun.is_repeated
            answer = await self._call(exchange, line, caller, body, is_repeated=is_repeated)
            if answer.status != SHARD_MOVED:
                return answer
            answer.close()
        if not (body.is_whole and caller.practice_id):
            raise UnavailableError(retry_after_s=RETRY_AFTER_S)
        moved = replace(caller, shard=await self._authenticator.moved(caller.practice_id))
        answer = await self._call(exchange, line, moved, body)
        if answer.status == SHARD_MOVED:
            answer.close()
            raise UnavailableError(retry_after_s=RETRY_AFTER_S)
        return answer

    async def _call(
        self, exchange: Exchange, line: Line, caller: Caller, body: RequestBody, *, is_repeated: bool = False
    ) -> Answer:
        scope = exchange.scope
        query = scope["query_string"]
        return await line.call(
            exchange.route.method,
            scope["raw_path"] + b"?" + query if query else scope["raw_path"],
            headers=((REQUEST_ID_HEADER, exchange.head.request_id), *exchange.head.passing, *body.framing()),
            context=self._signer.lines(caller),
            body=body.content(),
            is_repeated=is_repeated,
        )

    async def _pass_on(self, exchange: Exchange, answer: Answer, deadline: Deadline) -> None:
        """A small answer that is there goes out in one piece, without waiting; any other as it comes."""
        headers = answer_headers(answer.headers, exchange.head.request_id)
        # on the short way it was there as a whole
        is_early = exchange.begun is None and not (exchange.body and exchange.body.is_read)
        if is_early:  # what is left of the request stands between this answer and the client's next request
            headers.append(CLOSE)
        send, exchange.answered = exchange.send, True
        try:
            if not is_early and answer.is_whole and answer.arrived_bytes <= SMALL_BYTES:
                body = await answer.read()
                await send({"type": "http.response.start", "status": answer.status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                return
            deadline.postpone(STREAM_S)
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            while chunk := await answer.read():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if is_early:
                await linger(exchange.receive)
            await send({"type": "http.response.body", "body": b""})
        except Exception as fault:
            raise AnswerCutError from fault
