"""Which server a new practice goes to. Pure: no connection, no clock."""

from collections.abc import Collection, Iterable

from tenant_service.exceptions import NoServerAvailableError
from tenant_service.storage.registry import Server, ServerState


def choose_server(servers: Iterable[Server], *, usable: Collection[str]) -> Server:
    """The open, usable server with most free capacity. Raises NoServerAvailableError."""
    candidates = [server for server in servers if server.state is ServerState.OPEN and server.key in usable]
    if not candidates:
        raise NoServerAvailableError(retry_after_s=5)
    return max(candidates, key=lambda server: (server.capacity - server.practices, server.key))
