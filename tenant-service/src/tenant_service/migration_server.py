"""A shard server during a run over the fleet: with threads and sessions of the run's own, so sign-ups find theirs."""

import contextlib
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from tenant_service.exceptions import ShardServerUnavailableError
from tenant_service.server_admin import Access, ServerAdmin
from tenant_service.servers import FAULTS, ServerRegistry
from tenant_service.shard_migration import LONGEST_PAUSE_S, TRIES, explain


class MigrationServer:
    """One server. Once it doesn't answer it is given up for the run: waiting for it a thousand times helps nobody."""

    def __init__(self, key: str, servers: ServerRegistry, *, workers: int) -> None:
        self.threads = ThreadPoolExecutor(workers, thread_name_prefix=f"migrating {key}")
        self._admin: ServerAdmin | None = None
        self._fault: str | None = None
        try:
            self._admin = ServerAdmin(servers.admin(key).access, connections=workers)
        except ShardServerUnavailableError as fault:
            self._fault = str(fault)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: TracebackType | None) -> None:
        self.threads.shutdown(wait=True)
        if self._admin:
            self._admin.close()

    @property
    def access(self) -> Access:
        """How to get in; only of a server that gave a lock."""
        assert self._admin
        return self._admin.access

    @contextlib.contextmanager
    def locked(self, database: str) -> Iterator[str | None]:
        """The shard's lock, so that nobody drops or moves it meanwhile; or why there is none."""
        with contextlib.ExitStack() as held:
            yield self._lock(database, held)

    def _lock(self, database: str, held: contextlib.ExitStack) -> str | None:
        for tries_left in reversed(range(TRIES)):
            if self._fault or self._admin is None:
                return self._fault
            try:
                held.enter_context(self._admin.locked(database))
            except FAULTS as fault:
                told = explain(fault)
                if getattr(getattr(fault, "orig", fault), "pgcode", None):
                    return f"Nobody else may be at this shard: {told}"  # it answered
                if not tries_left:
                    self._fault = told
            else:
                return None
            time.sleep(random.uniform(0, LONGEST_PAUSE_S))
        return self._fault
