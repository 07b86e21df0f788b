"""The outermost ASGI application: forwarded routes go the short way, everything else to the pages behind it.

Every answer leaves through here with its request id, `Cache-Control` and `X-Content-Type-Options`.
"""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.addresses import ClientAddresses
from gateway.bodies import linger
from gateway.exceptions import AnswerCutError, ClientGoneError
from gateway.forwarding import Exchange, Forwarder
from gateway.headers import CLOSE, Head, answer_headers, read_head
from gateway.routes import KEPT_BYTES, Methods, Route, RouteTable
from gateway.short_calls import CLIENT_GONE, Begun, ShortCalls
from shared.door import SLOW_S, send_error
from shared.errors import MethodNotAllowedError, ServiceError
from shared.logs import describe_fault, get_logger
from shared.metrics import RequestMetrics
from shared.whole_request import WholeRequest

_log = get_logger()


class Front:
    """Matches, forwards, and renders what goes wrong."""

    def __init__(
        self,
        pages: ASGIApp,
        *,
        routes: RouteTable,
        forwarder: Forwarder,
        short_calls: ShortCalls,
        addresses: ClientAddresses,
        metrics: RequestMetrics,
    ) -> None:
        self._pages = pages
        self._routes = routes
        self._forwarder = forwarder
        self._short_calls = short_calls
        self._addresses = addresses
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        started = time.perf_counter()
        head = read_head(scope["headers"])
        methods = self._routes.match(scope["raw_path"])
        if methods is None:
            status, template = await self._show_page(scope, receive, send, head)
        else:
            template = next(iter(methods.values())).template
            status = await self._forward(methods, scope, receive, send, head)
        self.note(scope["method"], template, status, head.request_id, time.perf_counter() - started)

    def short_way(self, request: WholeRequest) -> bool:
        """See HasShortWay."""
        return self._short_calls.begin(request, self)

    def carrying_on(self, begun: Begun) -> ASGIApp:
        """See LongWay."""

        async def carry_on(scope: Scope, receive: Receive, send: Send) -> None:
            head, route = begun.head, begun.route
            exchange = Exchange(scope, receive, send, head, route, begun.address, begun)
            status = await self._carry(exchange)
            self.note(scope["method"], route.template, status, head.request_id, time.perf_counter() - begun.started)

        return carry_on

    async def _forward(self, methods: Methods, scope: Scope, receive: Receive, send: Send, head: Head) -> int:
        try:
            route = _route_of(methods, scope["method"])
        except ServiceError as error:
            await _refuse(error, scope, receive, send, head)
            return error.status
        address = self._addresses.of(scope["client"], head.forwarded_for)
        return await self._carry(Exchange(scope, receive, send, head, route, address))

    async def _carry(self, exchange: Exchange) -> int:
        scope, receive, send, head = exchange.scope, exchange.receive, exchange.send, exchange.head
        try:
            return await self._forwarder.forward(exchange)
        except ServiceError as error:
            await _refuse(error, scope, receive, send, head)
            return error.status
        except ClientGoneError:
            return CLIENT_GONE
        except AnswerCutError:
            return 502  # the answer stays unfinished, so the server cuts the connection
        except Exception as fault:  # noqa: BLE001 - the last net: answered as 500, logged without its text
            _log.error("unexpected_fault", request_id=head.request_id.decode(), **describe_fault(fault))
            await _refuse(ServiceError(), scope, receive, send, head)
            return 500

    async def _show_page(self, scope: Scope, receive: Receive, send: Send, head: Head) -> tuple[int, str]:
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = answer_headers(message["headers"], head.request_id)
                message = {**message, "headers": [*headers, CLOSE] if _may_stay_away(head) else headers}
            await send(message)

        request_id = head.request_id.decode()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        scope.setdefault("state", {})["request_id"] = request_id
        await self._pages(scope, receive, send_with_headers)
        return status, getattr(scope.get("route"), "path", "unmatched")

    def note(self, method: str, template: str, status: int, request_id: bytes, duration_s: float) -> None:
        """Counts an answered call, and logs one that failed or took long."""
        known = method if method in _METHODS else "other"
        self._metrics.observe(known, template, status, duration_s)
        if status >= 500 or duration_s > SLOW_S:  # noqa: PLR2004 - HTTP's server errors
            _log.warning(
                "request_failed" if status >= 500 else "request_slow",  # noqa: PLR2004
                method=known,
                route=template,
                status=status,
                duration_ms=round(duration_s * 1000, 1),
                request_id=request_id.decode(),
            )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _route_of(methods: Methods, method: str) -> Route:
    route = methods.get(method)
    if route is None:
        raise MethodNotAllowedError(headers={"Allow": ", ".join(sorted(methods))})
    return route


def _may_stay_away(head: Head) -> bool:
    """Whether the body may be too long to wait for, or never be sent: then nothing after it can be told from it."""
    return head.chunked or head.content_length > KEPT_BYTES or (head.waits and head.has_body)


async def _refuse(error: ServiceError, scope: Scope, receive: Receive, send: Send, head: Head) -> None:
    """Answers with the error; a body that nobody read and that may be long is drained a moment, then all is closed."""
    closes = _may_stay_away(head)

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = answer_headers(message["headers"], head.request_id)
            message["headers"] = [*headers, CLOSE] if closes else headers
        else:
            message["more_body"] = closes
        await send(message)

    scope.setdefault("state", {})["request_id"] = head.request_id.decode()
    await send_error(error, scope=scope, send=send_with_headers)
    if closes:
        await linger(receive)
        await send({"type": "http.response.body", "body": b""})
