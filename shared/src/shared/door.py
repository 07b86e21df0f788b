"""A service's door: nobody enters without a signed context. Pure ASGI, around whatever the service is built of."""

import time
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol, runtime_checkable

import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.context import REQUEST_ID_HEADER, Caller, ContextVerifier, Header, SignatureError, Signed
from shared.errors import ServiceError, UnauthenticatedError, UnsupportedMediaTypeError, error_media_type
from shared.ids import request_id_of
from shared.logs import describe_fault, get_logger
from shared.metrics import RequestMetrics
from shared.whole_request import WholeRequest

OPEN_PATHS = frozenset({"/livez", "/readyz", "/metrics", "/.well-known/jwks.json"})
SLOW_S = 1.0
"""Requests slower than this are logged; so are errors. A line for every call would cost more than the call."""

_CLIENT_GONE = 499
"""Noted for a request that ended without an answer, as nginx does."""
_BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
_JSON_TYPES = frozenset({b"application/json"})
_PATCH_TYPES = _JSON_TYPES | {b"application/merge-patch+json"}
_log = get_logger()


Serving = tuple[str, Coroutine[Any, Any, Response]]
"""A route's template, and its handler, called."""


@runtime_checkable
class BeginsShortly(Protocol):
    """What stands behind the door, if it can begin a call without ASGI's messages (see shared.short_way)."""

    def begin(self, scope: Scope, body: bytes) -> Serving | None:
        """The handler for a request that is well-formed and allowed; None for any other."""


class Door:
    """Verifies the context and puts a `Caller` into `scope["state"]["caller"]`; answers 401 to everybody else."""

    def __init__(self, app: ASGIApp, *, verifier: ContextVerifier, metrics: RequestMetrics) -> None:
        self._app = app
        self._begin = app.begin if isinstance(app, BeginsShortly) else None
        self._verifier = verifier
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = scope["headers"]
        sent_id = next((value for name, value in headers if name == REQUEST_ID_HEADER), None)
        request_id = request_id_of(sent_id).decode()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["caller"] = Caller()
        status = 0

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if scope["path"] not in OPEN_PATHS:
                state["caller"] = self._enter(scope)
            await self._app(scope, receive, send_noting_status)
        except ServiceError as error:
            await send_error(error, scope=scope, send=send_noting_status)
        except Exception as fault:  # the last net: answered as 500, logged without its text
            _log.error("unexpected_fault", **describe_fault(fault))
            if status:
                raise  # half an answer is out: uvicorn must cut the connection, so that nobody takes it for whole
            await send_error(ServiceError(), scope=scope, send=send_noting_status)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self._note(scope["method"], route, status or _CLIENT_GONE, time.perf_counter() - started)

    @property
    def is_short(self) -> bool:
        """Whether there is a short way behind it."""
        return self._begin is not None

    def take(self, request: WholeRequest, app: object) -> bool:
        """See HasShortWay. What it doesn't let in comes again, and is told why then."""
        started = time.perf_counter()
        path, query = request.split_target()
        text = path.decode("ascii")
        if self._begin is None or text in OPEN_PATHS:
            return False
        signed: Signed | None = request.known
        scope: Scope = {"type": "http", "method": request.method, "path": text, "query_string": query, "app": app}
        scope["headers"] = request.headers
        try:
            if signed is None:
                signed = self._verifier.read(request.headers)
                _require_json(scope)
            scope["state"] = {"caller": self._verifier.admit(signed)}
        except (SignatureError, ServiceError):
            return False
        serving = self._begin(scope, request.body)
        if serving is None:
            return False
        request.known = signed
        request.spawn(self._serve(request, *serving, started))
        return True

    async def _serve(
        self, request: WholeRequest, route: str, handling: Coroutine[Any, Any, Response], started: float
    ) -> None:
        request_id = request_id_of(request.request_id).decode()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        status = _CLIENT_GONE
        try:
            answer = await handling
            status = answer.status_code
            request.answer(status, answer.raw_headers, bytes(answer.body))
        except ServiceError as error:
            status = error.status
            request.answer(status, *error_answer(error, request.headers, request_id))
        except Exception as fault:  # noqa: BLE001 - the last net: answered as 500, logged without its text
            _log.error("unexpected_fault", **describe_fault(fault))
            status = 500
            if request.response_complete:
                request.cut()
            else:
                request.answer(status, *error_answer(ServiceError(), request.headers, request_id))
        except BaseException:
            request.cut()
            raise
        finally:
            request.left()
            self._note(request.method, route, status, time.perf_counter() - started)

    def _enter(self, scope: Scope) -> Caller:
        try:
            caller = self._verifier.verify(scope["headers"])
        except SignatureError as fault:
            raise UnauthenticatedError("Only the gateway may call this service.") from fault
        _require_json(scope)
        return caller

    def _note(self, method: str, route: str, status: int, duration_s: float) -> None:
        self._metrics.observe(method, route, status, duration_s)
        if status >= 500 or duration_s > SLOW_S:  # noqa: PLR2004 - HTTP's server errors
            _log.warning(
                "request_failed" if status >= 500 else "request_slow",  # noqa: PLR2004
                method=method,
                route=route,
                status=status,
                duration_ms=round(duration_s * 1000, 1),
            )


def _require_json(scope: Scope) -> None:
    """Raises UnsupportedMediaTypeError for a body that isn't declared as JSON (RFC 9110, 15.5.16)."""
    if scope["method"] not in _BODY_METHODS:
        return
    sent = dict(scope["headers"])
    if sent.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in sent:
        return
    media_type = sent.get(b"content-type", b"").split(b";")[0].strip().lower()
    if media_type not in (_PATCH_TYPES if scope["method"] == "PATCH" else _JSON_TYPES):
        raise UnsupportedMediaTypeError


def error_answer(error: ServiceError, headers: Iterable[Header], request_id: str) -> tuple[list[Header], bytes]:
    """Headers and body that answer a request, which had these headers, with the error."""
    accept = next((value for name, value in headers if name == b"accept"), None)
    body = error.body(request_id)
    answered = [
        (b"content-type", error_media_type(accept)),
        (b"content-length", str(len(body)).encode()),
        *((name.lower().encode(), value.encode("latin-1")) for name, value in error.headers.items()),
    ]
    return answered, body


async def send_error(error: ServiceError, *, scope: Scope, send: Send) -> None:
    """Answers with the error."""
    headers, body = error_answer(error, scope["headers"], scope["state"]["request_id"])
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
