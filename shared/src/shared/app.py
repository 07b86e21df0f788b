"""The FastAPI application every service starts from: error answers, health, metrics and API document in one way."""

from codecs import getincrementaldecoder
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from json import JSONDecodeError
from typing import Annotated, Any

import orjson
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import errors, metrics
from shared.context import Caller, ContextVerifier
from shared.door import Door
from shared.logs import describe_fault, get_logger
from shared.roles import Permission, demand
from shared.whole_request import WholeRequest

Readiness = Callable[[], Awaitable[dict[str, str]]]
"""What is missing, by name; empty when the service can do its work."""

READING = ["GET", "HEAD"]
"""Of a page that people and load balancers ask for: FastAPI adds no HEAD to a GET (RFC 9110, 9.1)."""
MAX_FAULTS = 50
_NOT_UTF8 = "JSON is UTF-8"
_STATUS_ERRORS: dict[int, type[errors.ServiceError]] = {
    400: errors.MalformedRequestError,
    401: errors.UnauthenticatedError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
    405: errors.MethodNotAllowedError,
}
_log = get_logger()


async def caller_of(request: Request) -> Caller:
    """The verified caller that the door left. A coroutine, because FastAPI runs plain functions in a thread."""
    caller = request.scope["state"]["caller"]
    assert isinstance(caller, Caller)
    return caller


CallerDep = Annotated[Caller, Depends(caller_of)]


def requires(permission: Permission) -> Any:
    """A route's dependency: 403 unless the caller's role may do this."""

    async def check(caller: CallerDep) -> None:
        demand(caller, permission)

    return Depends(check)


async def service_only(caller: CallerDep) -> None:
    """A route's dependency for `/internal`: 404 for everybody but another service, as if nothing were there."""
    if not caller.is_service:
        raise errors.NotFoundError


class ServiceApp(FastAPI):
    """FastAPI that is entered by the door.

    The door stands outside of FastAPI's own layers (telemetry, body limit, Starlette's error net): they took an eighth
    of a call's time before a handler was even looked for, and there is nothing in them that the door doesn't do.
    """

    door: Door
    short_way: Callable[[WholeRequest], bool]
    """There if the door is short."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self.door(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """FastAPI's, without Starlette's error net: it raises what it has answered, and uvicorn cuts the connection."""
        stack = super().build_middleware_stack()
        assert isinstance(stack, ServerErrorMiddleware)
        return stack.app

    async def inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What FastAPI itself is."""
        await super().__call__(scope, _only_utf8(receive), send)


def _only_utf8(receive: Receive) -> Receive:
    """Receives a body as JSON may be written: in UTF-8 (RFC 8259, 8.1), of which an unescaped NUL is no part.

    Python's parser would also read UTF-16, UTF-32 and lone surrogates, which no other part of the product does.
    """
    decoder = getincrementaldecoder("utf-8")()

    async def receive_utf8() -> Message:
        message = await receive()
        if message["type"] == "http.request":
            body = message.get("body", b"")
            try:
                decoder.decode(body, final=not message.get("more_body"))
            except UnicodeDecodeError:
                raise JSONDecodeError(_NOT_UTF8, "", 0) from None
            if b"\0" in body:
                raise JSONDecodeError(_NOT_UTF8, "", 0)
        return message

    return receive_utf8


def _nothing_between(inside: ASGIApp) -> ASGIApp:
    return inside


def create_service_app(
    *,
    title: str,
    keys: Sequence[bytes],
    ready: Readiness,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
    behind_door: Callable[[ASGIApp], ASGIApp] = _nothing_between,
) -> ServiceApp:
    """A FastAPI application behind a Door, with `/livez`, `/readyz`, `/metrics`. Nothing connects here.

    `behind_door` makes what stands between the door and FastAPI, around the FastAPI that it is given.
    """
    request_metrics = metrics.RequestMetrics()
    app = ServiceApp(title=title, docs_url=None, redoc_url=None, lifespan=lifespan, redirect_slashes=False)
    app.door = Door(behind_door(app.inside), verifier=ContextVerifier(keys), metrics=request_metrics)
    if app.door.is_short:
        app.short_way = lambda request: app.door.take(request, app)
    app.state.metrics = request_metrics
    install_error_handlers(app)
    add_health_routes(app, ready)

    @app.get("/metrics", include_in_schema=False)
    async def show_metrics() -> Response:
        return Response(request_metrics.text(), media_type=metrics.MEDIA_TYPE)

    return app


def add_health_routes(app: FastAPI, ready: Readiness) -> None:
    """`/livez` depends on nothing; `/readyz` is 200 only when the service's work would succeed."""

    @app.api_route("/livez", methods=READING, include_in_schema=False)
    async def livez() -> Response:
        return Response(b'{"status":"alive"}', media_type="application/json")

    @app.api_route("/readyz", methods=READING, include_in_schema=False)
    async def readyz() -> Response:
        missing = await ready()
        body = orjson.dumps({"status": "not ready", "missing": missing} if missing else {"status": "ready"})
        return Response(body, status_code=503 if missing else 200, media_type="application/json")


def install_error_handlers(app: FastAPI) -> None:
    """Every error of a FastAPI application becomes the product's error answer."""

    @app.exception_handler(errors.ServiceError)
    async def known(request: Request, error: errors.ServiceError) -> Response:
        return error_response(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, fault: RequestValidationError) -> Response:
        return error_response(request, _validation_error(fault))

    @app.exception_handler(HTTPException)
    async def http(request: Request, fault: HTTPException) -> Response:
        error_type = _STATUS_ERRORS.get(fault.status_code, errors.ServiceError)
        return error_response(request, error_type(headers=fault.headers))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, fault: Exception) -> Response:
        _log.error("unexpected_fault", **describe_fault(fault))
        return error_response(request, errors.ServiceError())


def error_response(request: Request, error: errors.ServiceError) -> Response:
    """The answer to this request for this error."""
    accept = request.headers.get("accept", "").encode("latin-1")
    return Response(
        error.body(request.scope.get("state", {}).get("request_id", "")),
        status_code=error.status,
        headers=error.headers,
        media_type=errors.error_media_type(accept).decode(),
    )


def _validation_error(fault: RequestValidationError) -> errors.ServiceError:
    faults = [_shown(one) for one in fault.errors()[:MAX_FAULTS]]
    if any(one["type"] == "json_invalid" for one in fault.errors()):
        return errors.MalformedRequestError("The body is not valid JSON.")
    return errors.ValidationFailedError("One or more values are not acceptable.", faults=faults)


def _shown(one: dict[str, Any]) -> dict[str, str]:
    """A fault without the value: Pydantic's messages name the rule, not the input."""
    where = [str(part)[:64] for part in one["loc"]]
    field = ".".join(where[1:] if where[:1] in (["body"], ["query"], ["path"], ["header"]) and where[1:] else where)
    return {"field": field, "message": f"{one['msg']}."}
