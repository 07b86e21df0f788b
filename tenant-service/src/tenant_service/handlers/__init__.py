"""The door: parse, call a rule, shape the answer. `/internal` is for services, `/api/v1/admin` for the platform."""

from tenant_service.handlers import copies, fleet, internal, moves, operations, servers, shards

ROUTERS = (internal.router, servers.router, shards.router, moves.router, copies.router, fleet.router, operations.router)
