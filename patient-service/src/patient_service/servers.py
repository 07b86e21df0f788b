"""Where the shard servers are: tenant-service says so, this process remembers it. There is no default server."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import httpx

from patient_service.exceptions import ShardUnavailableError, UnknownServerError
from shared.client import async_service_client
from shared.logs import get_logger

REFRESH_S = 30.0
RETRY_S = 1.0
"""Between two questions, however many calls name an unknown server or fail to connect."""
ASK_LIMIT_S = 2.0
REACH_LIMIT_S = 1.0
_log = get_logger()


class Server(NamedTuple):
    """A shard server as tenant-service describes it."""

    key: str
    host: str
    port: int
    sslmode: str | None
    sslrootcert: str | None
    max_connections: int

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> "Server":
        """Reads an entry of `/internal/servers`. Raises KeyError, TypeError or ValueError."""
        return cls(
            key=str(entry["key"]),
            host=str(entry["host"]),
            port=int(entry["port"]),
            sslmode=entry.get("sslmode") or None,
            sslrootcert=entry.get("sslrootcert") or None,
            max_connections=int(entry["max_connections"]),
        )


class Servers:
    """The known servers. Lives in one event loop; `keep_fresh` runs as its task."""

    def __init__(self, tenant_service_url: str, *, keys: tuple[bytes, ...]) -> None:
        self._url = tenant_service_url
        self._keys = keys
        self._known: dict[str, Server] = {}
        self._asked_at = -RETRY_S
        self._asking: asyncio.Task[None] | None = None
        self._client: httpx.AsyncClient | None = None
        self.on_moved: Callable[[str], None] = _nobody
        """Told the key of a server whose address has changed."""

    async def find(self, key: str) -> Server:
        """The server; tenant-service is asked if it is unknown. Raises UnknownServerError, ShardUnavailableError."""
        if key not in self._known and self._asking is not None:
            await self.refresh()  # the answer that is on its way may be older than the server
        if key not in self._known:
            await self.refresh(waits=True)
        if key in self._known:
            return self._known[key]
        if not self._known:
            raise ShardUnavailableError  # tenant-service hasn't answered yet: nothing can be said about the name
        raise UnknownServerError

    async def refresh(self, *, waits: bool = False) -> None:
        """Asks tenant-service: one question at a time, not within a second of the last. Its faults are only logged.

        Whoever waits is not content with an answer of the last second: it may be older than what it looks for.
        """
        if self._asking is None:
            pause_s = self._asked_at + RETRY_S - asyncio.get_running_loop().time()
            if pause_s > 0 and not waits:
                return
            self._asking = asyncio.create_task(self._ask(after_s=pause_s))
        # shielded: whoever goes away must not take the answer from the others
        await asyncio.shield(self._asking)

    async def keep_fresh(self) -> None:
        """Asks again and again, so that a server's new address or size becomes known."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_S if self._known else RETRY_S)

    async def missing(self) -> dict[str, str]:
        """For `/readyz`: empty when at least one shard server can be reached."""
        if not self._known:
            return {"tenant-service": "has not named the shard servers yet"}
        if any(await asyncio.gather(*map(_reachable, self._known.values()))):
            return {}
        return {"shard servers": "none can be reached"}

    async def close(self) -> None:
        """Ends the connections to tenant-service."""
        if self._asking is not None:
            self._asking.cancel()
        if self._client is not None:
            await self._client.aclose()

    async def _ask(self, *, after_s: float) -> None:
        try:
            await asyncio.sleep(after_s)
            if self._client is None:
                self._client = async_service_client(
                    self._url, name="patient-service", keys=self._keys, timeout_s=ASK_LIMIT_S
                )
            answer = await self._client.get("/internal/servers")
            answer.raise_for_status()
            entries = [Server.from_entry(entry) for entry in answer.json()["servers"]]
        except (httpx.HTTPError, httpx.InvalidURL, KeyError, TypeError, ValueError) as fault:
            _log.warning("shard_servers_not_told", fault=type(fault).__qualname__)
        else:
            before, self._known = self._known, {entry.key: entry for entry in entries}
            for key in before.keys() & self._known.keys():
                if before[key][:3] != self._known[key][:3]:  # key, host and port
                    _log.info("shard_server_moved", server=key)
                    self.on_moved(key)
        finally:
            self._asked_at = asyncio.get_running_loop().time()
            self._asking = None


def _nobody(_: str) -> None:
    """Wants to know."""


async def _reachable(server: Server) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(REACH_LIMIT_S):
            if server.host.startswith("/"):
                path = f"{server.host}/.s.PGSQL.{server.port}"
                _, writer = await asyncio.open_unix_connection(path)
            else:
                _, writer = await asyncio.open_connection(server.host, server.port)
        writer.close()
        return True
    return False
