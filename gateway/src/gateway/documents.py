"""The services' OpenAPI documents merged into one: exactly the routes of the table, and the components they need."""

import asyncio
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson

from gateway.asking import Asker, NoAnswerError
from gateway.routes import ROUTES, Access, Route, Service
from shared.errors import UnavailableError
from shared.logs import get_logger

ASK_TIMEOUT_S = 5.0
KEEP_S = 60.0
_INFO = {
    "title": "GoWebbo",
    "version": "1",
    "description": "Practices and their patients; each practice's data is in a database of its own.",
}
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "The token of a log-in."},
    "basic": {"type": "http", "scheme": "basic", "description": "The platform's admin."},
}
_SECURITY: dict[Access, list[dict[str, list[str]]]] = {
    Access.PUBLIC: [],
    Access.BEARER: [{"bearer": []}],
    Access.ADMIN: [{"basic": []}],
    Access.BEARER_OR_ADMIN: [{"bearer": []}, {"basic": []}],
}
_PARAMETER = re.compile(r"\{[^}]*\}")
_REFERENCE = "#/components/"
_log = get_logger()

Document = dict[str, Any]
Name = tuple[str, str]
"""A component: its section (`schemas`, …) and its name there."""


class MergedDocument:
    """The merged document, made on demand and kept for a minute; an older one is better than none."""

    def __init__(self, askers: Mapping[Service, Sequence[Asker]]) -> None:
        self._askers = askers
        self._json: bytes | None = None
        self._made_at = float("-inf")
        self._making = asyncio.Lock()

    async def json(self) -> bytes:
        """The document. Raises UnavailableError while a service's part was never there."""
        async with self._making:
            if self._json is None or time.monotonic() - self._made_at >= KEEP_S:
                await self._make()
        if self._json is None:
            raise UnavailableError("The document of a service is not available right now.", retry_after_s=2)
        return self._json

    async def _make(self) -> None:
        try:
            parts = await asyncio.gather(*(_part(askers) for askers in self._askers.values()))
        except NoAnswerError:
            return
        self._json = orjson.dumps(merge(dict(zip(self._askers, parts, strict=True))))
        self._made_at = time.monotonic()


async def _part(askers: Sequence[Asker]) -> Document:
    """A service's document, of whichever process has it first. Raises NoAnswerError."""
    for asker in askers:
        with suppress(NoAnswerError):
            return await _part_of_one(asker)
    raise NoAnswerError


async def _part_of_one(asker: Asker) -> Document:
    status, document = await asker.get("/openapi.json", timeout_s=ASK_TIMEOUT_S)
    if status != 200 or not isinstance(document, dict):  # noqa: PLR2004 - HTTP's OK
        raise NoAnswerError
    return document


def merge(parts: Mapping[Service, Document]) -> Document:
    """One document of the services' ones."""
    described = list(_described(parts))
    needed: dict[Service, dict[Name, Any]] = {service: {} for service in parts}
    for route, _, operation in described:
        needed[route.service] |= _closure(parts[route.service], operation)
    names = _names(needed)
    paths: Document = {}
    for route, path, operation in described:
        shown = {**operation, "security": _SECURITY[route.access]}
        paths.setdefault(path, {})[route.method.lower()] = _renamed(shown, names[route.service])
    components: Document = {"securitySchemes": _SCHEMES}
    for service, found in needed.items():
        for (section, name), component in found.items():
            renamed = names[service][section, name]
            components.setdefault(section, {})[renamed] = _renamed(component, names[service])
    return {"openapi": "3.1.0", "info": _INFO, "paths": paths, "components": components}


def _described(parts: Mapping[Service, Document]) -> Iterator[tuple[Route, str, Document]]:
    """Every route of the table with its path and operation in the service's document."""
    for route in ROUTES:
        found = _operation(parts.get(route.service, {}), route)
        if found:
            yield (route, *found)
        elif not route.is_alias:
            _log.warning("route_not_documented", method=route.method, route=route.template)


def _operation(part: Document, route: Route) -> tuple[str, Document] | None:
    """How a service describes a route: path (with the service's names of parameters) and operation."""
    wanted = _PARAMETER.sub("{}", route.template)
    for path, operations in part.get("paths", {}).items():
        if _PARAMETER.sub("{}", path) == wanted and route.method.lower() in operations:
            return path, operations[route.method.lower()]
    return None


def _references(node: Any) -> Iterator[Name]:
    if isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith(_REFERENCE):
            section, _, name = reference.removeprefix(_REFERENCE).partition("/")
            yield section, name
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _references(child)


def _closure(part: Document, node: Any) -> dict[Name, Any]:
    """Every component that is needed to understand this node."""
    found: dict[Name, Any] = {}
    waiting = list(_references(node))
    while waiting:
        section, name = wanted = waiting.pop()
        component = part.get("components", {}).get(section, {}).get(name)
        if wanted not in found and component is not None:
            found[wanted] = component
            waiting.extend(_references(component))
    return found


def _names(needed: Mapping[Service, Mapping[Name, Any]]) -> dict[Service, dict[Name, str]]:
    """The merged name of each component: its own, unless services mean different things by it."""
    meanings: dict[Name, list[Any]] = {}
    for found in needed.values():
        for name, component in found.items():
            meaning = _closure({"components": _sections(found)}, component) | {name: component}
            if meaning not in meanings.setdefault(name, []):
                meanings[name].append(meaning)
    return {
        service: {name: name[1] if len(meanings[name]) == 1 else f"{service.value}.{name[1]}" for name in found}
        for service, found in needed.items()
    }


def _sections(found: Mapping[Name, Any]) -> Document:
    sections: Document = {}
    for (section, name), component in found.items():
        sections.setdefault(section, {})[name] = component
    return sections


def _renamed(node: Any, names: Mapping[Name, str]) -> Any:
    """The node with its references following the new names."""
    if isinstance(node, list):
        return [_renamed(child, names) for child in node]
    if not isinstance(node, dict):
        return node
    renamed = {key: _renamed(child, names) for key, child in node.items()}
    for section, name in _references({"$ref": node.get("$ref")}):
        if (section, name) in names:
            renamed["$ref"] = f"{_REFERENCE}{section}/{names[section, name]}"
    return renamed
