"""The route table: every public address, who may call it and which service answers. Nothing else is forwarded.

Protected is the default; `PUBLIC`, `ADMIN` and `BEARER_OR_ADMIN` are written out. A path is matched as the bytes that
the client sent, never decoded: what needs decoding to look like a route is none.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

MAX_BODY_BYTES = 2 * 1024 * 1024
KEPT_BYTES = 64 * 1024
"""So much of a body is read before a service is called, and kept so that the call may be repeated."""


class Service(Enum):
    """The services behind the gateway, by their name."""

    AUTH = "auth-service"
    TENANT = "tenant-service"
    PATIENT = "patient-service"


class Access(Enum):
    """Whom a route lets in."""

    BEARER = "bearer"
    PUBLIC = "public"
    ADMIN = "admin"
    BEARER_OR_ADMIN = "bearer-or-admin"


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One method of one address. Only patient-service's routes need the practice's shard."""

    method: str
    template: str
    service: Service
    access: Access = Access.BEARER
    is_alias: bool = False
    """An older address of a route; its service may leave it out of the document."""

    @property
    def max_body_bytes(self) -> int:
        """What a body may have. Anonymous ones must fit into what is kept, so that a slow one holds no connection."""
        return KEPT_BYTES if self.access is Access.PUBLIC else MAX_BODY_BYTES

    @property
    def needs_shard(self) -> bool:
        """Whether the signed context must name the practice's shard."""
        return self.service is Service.PATIENT


ROUTES = (
    Route("POST", "/api/v1/practices/signup", Service.AUTH, Access.PUBLIC),
    Route("POST", "/api/v1/practices/login", Service.AUTH, Access.PUBLIC),
    Route("POST", "/api/v1/signup", Service.AUTH, Access.PUBLIC, is_alias=True),
    Route("POST", "/api/v1/login", Service.AUTH, Access.PUBLIC, is_alias=True),
    Route("POST", "/api/v1/auth/refresh", Service.AUTH, Access.PUBLIC),
    Route("POST", "/api/v1/auth/logout", Service.AUTH),
    Route("GET", "/api/v1/auth/sessions", Service.AUTH),
    Route("DELETE", "/api/v1/auth/sessions", Service.AUTH),
    Route("DELETE", "/api/v1/auth/sessions/{id}", Service.AUTH),
    Route("POST", "/api/v1/auth/password/forgot", Service.AUTH, Access.PUBLIC),
    Route("POST", "/api/v1/auth/password/reset", Service.AUTH, Access.PUBLIC),
    Route("POST", "/api/v1/auth/password/change", Service.AUTH),
    Route("POST", "/api/v1/auth/email/verify", Service.AUTH, Access.PUBLIC),
    Route("POST", "/api/v1/auth/email/resend", Service.AUTH),
    Route("GET", "/api/v1/auth/totp", Service.AUTH),
    Route("POST", "/api/v1/auth/totp", Service.AUTH),
    Route("POST", "/api/v1/auth/totp/confirm", Service.AUTH),
    Route("POST", "/api/v1/auth/totp/recovery-codes", Service.AUTH),
    Route("DELETE", "/api/v1/auth/totp", Service.AUTH),
    Route("GET", "/api/v1/auth/practices", Service.AUTH),
    Route("POST", "/api/v1/auth/switch", Service.AUTH),
    Route("GET", "/api/v1/staff", Service.AUTH),
    Route("PATCH", "/api/v1/staff/{id}", Service.AUTH),
    Route("DELETE", "/api/v1/staff/{id}", Service.AUTH),
    Route("GET", "/api/v1/staff/invitations", Service.AUTH),
    Route("POST", "/api/v1/staff/invitations", Service.AUTH),
    Route("POST", "/api/v1/staff/invitations/accept", Service.AUTH, Access.PUBLIC),
    Route("POST", "/api/v1/staff/invitations/{id}/resend", Service.AUTH),
    Route("DELETE", "/api/v1/staff/invitations/{id}", Service.AUTH),
    Route("GET", "/api/v1/api-keys", Service.AUTH),
    Route("POST", "/api/v1/api-keys", Service.AUTH),
    Route("DELETE", "/api/v1/api-keys/{id}", Service.AUTH),
    Route("GET", "/api/v1/audit", Service.AUTH, Access.BEARER_OR_ADMIN),
    Route("GET", "/api/v1/practices", Service.AUTH, Access.BEARER_OR_ADMIN),
    Route("GET", "/api/v1/practices/policy", Service.AUTH),
    Route("PUT", "/api/v1/practices/policy", Service.AUTH),
    Route("POST", "/api/v1/admin/login", Service.AUTH, Access.ADMIN),
    Route("POST", "/api/v1/admin/logout", Service.AUTH, Access.ADMIN),
    Route("GET", "/api/v1/admin/practices", Service.AUTH, Access.ADMIN),
    Route("POST", "/api/v1/admin/practices/{id}/suspend", Service.AUTH, Access.ADMIN),
    Route("POST", "/api/v1/admin/practices/{id}/resume", Service.AUTH, Access.ADMIN),
    Route("POST", "/api/v1/admin/practices/{id}/close", Service.AUTH, Access.ADMIN),
    Route("POST", "/api/v1/admin/practices/{id}/undo-close", Service.AUTH, Access.ADMIN),
    Route("POST", "/api/v1/admin/practices/{id}/export", Service.AUTH, Access.ADMIN),
    Route("GET", "/api/v1/admin/practices/{id}/deletion-record", Service.AUTH, Access.ADMIN),
    Route("GET", "/api/v1/admin/servers", Service.TENANT, Access.ADMIN),
    Route("POST", "/api/v1/admin/servers", Service.TENANT, Access.ADMIN),
    Route("POST", "/api/v1/admin/servers/{id}/drain", Service.TENANT, Access.ADMIN),
    Route("POST", "/api/v1/admin/servers/{id}/open", Service.TENANT, Access.ADMIN),
    Route("DELETE", "/api/v1/admin/servers/{id}", Service.TENANT, Access.ADMIN),
    Route("POST", "/api/v1/admin/servers/{id}/evacuate", Service.TENANT, Access.ADMIN),
    Route("POST", "/api/v1/admin/practices/{id}/move", Service.TENANT, Access.ADMIN),
    Route("POST", "/api/v1/admin/practices/{id}/backup", Service.TENANT, Access.ADMIN),
    Route("GET", "/api/v1/admin/practices/{id}/backups", Service.TENANT, Access.ADMIN),
    Route("POST", "/api/v1/admin/backups/restore", Service.TENANT, Access.ADMIN),
    Route("GET", "/api/v1/admin/practices/{id}/copies", Service.TENANT, Access.ADMIN),
    Route("DELETE", "/api/v1/admin/practices/{id}/copies/{database}", Service.TENANT, Access.ADMIN),
    Route("POST", "/api/v1/admin/practices/{id}/copies/{database}/diff", Service.TENANT, Access.ADMIN),
    Route("POST", "/api/v1/admin/practices/{id}/copies/{database}/swap", Service.TENANT, Access.ADMIN),
    Route("POST", "/api/v1/admin/practices/{id}/copies/{database}/take-back", Service.TENANT, Access.ADMIN),
    Route("POST", "/api/v1/admin/fleet/query", Service.TENANT, Access.ADMIN),
    Route("GET", "/api/v1/admin/operations", Service.TENANT, Access.ADMIN),
    Route("GET", "/api/v1/admin/isolation", Service.TENANT, Access.ADMIN),
    Route("GET", "/api/v1/admin/shards", Service.TENANT, Access.ADMIN),
    Route("GET", "/api/v1/admin/shards/status", Service.TENANT, Access.ADMIN),
    Route("POST", "/api/v1/admin/shards/migrate", Service.TENANT, Access.ADMIN),
    Route("GET", "/api/v1/admin/jobs/{id}", Service.TENANT, Access.ADMIN),
    Route("GET", "/api/v1/patients", Service.PATIENT),
    Route("POST", "/api/v1/patients", Service.PATIENT),
    Route("GET", "/api/v1/patients/{id}", Service.PATIENT),
    Route("PUT", "/api/v1/patients/{id}", Service.PATIENT),
    Route("PATCH", "/api/v1/patients/{id}", Service.PATIENT),
    Route("DELETE", "/api/v1/patients/{id}", Service.PATIENT),
    Route("POST", "/api/v1/patients/{id}/restore", Service.PATIENT),
)

_SEGMENT = rb"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,127}"
"""RFC 3986's unreserved characters: no `%`, and no leading dot, so that no segment can be `.` or `..`."""
_PARAMETER = re.compile(rb"\\\{[a-z_]+\\\}")

Methods = Mapping[str, Route]


class RouteTable:
    """Finds what stands at an address: literal ones in a dictionary, the few with an id by one expression each.

    Expressions are tried only where the address has the same third segment, its room: `/api/v1/patients/…`.

    What can be read can be asked for its head (RFC 9110, 9.1): HEAD is forwarded as the GET that it is like, and the
    server leaves the body out.
    """

    def __init__(self, routes: Iterable[Route] = ROUTES) -> None:
        self._literal: dict[bytes, dict[str, Route]] = {}
        patterns: dict[bytes, dict[str, Route]] = {}
        for route in routes:
            path = route.template.encode()
            where = patterns if b"{" in path else self._literal
            methods = where.setdefault(path, {})
            methods[route.method] = route
            if route.method == "GET":
                methods["HEAD"] = route
        self._patterns: defaultdict[bytes, list[tuple[re.Pattern[bytes], Methods]]] = defaultdict(list)
        for path, methods in patterns.items():
            expression = re.compile(_PARAMETER.sub(lambda _: _SEGMENT, re.escape(path)))
            self._patterns[_room(path)].append((expression, methods))

    def match(self, raw_path: bytes) -> Methods | None:
        """The routes at this address by method, None if there are none."""
        found = self._literal.get(raw_path)
        if found is not None:
            return found
        for pattern, methods in self._patterns.get(_room(raw_path), ()):
            if pattern.fullmatch(raw_path):
                return methods
        return None


def _room(path: bytes) -> bytes:
    """The third segment, empty if there is nothing behind it."""
    parts = path.split(b"/", 4)
    return parts[3] if len(parts) > 4 else b""  # noqa: PLR2004 - see above
