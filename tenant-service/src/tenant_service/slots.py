"""Bounds how many blocking deeds run at once, so that making databases leaves threads for everything else."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from tenant_service.exceptions import ProvisioningBusyError

WAIT_FOR_SLOT_S = 8.0
"""A sign-up has 10 s in all."""
_Result = TypeVar("_Result")


class Slots:
    """So many threads; who finds none free waits at most 8 s."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="provisioning")
        self._waiting = 0

    @property
    def has_queue(self) -> bool:
        """Whether somebody waits for a thread."""
        return self._waiting > 0

    async def run(self, deed: Callable[..., _Result], *arguments: object) -> _Result:
        """The deed's result. Raises ProvisioningBusyError, or what the deed raises."""
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_FOR_SLOT_S):
                await self._free.acquire()
        except TimeoutError as fault:
            raise ProvisioningBusyError(retry_after_s=2) from fault
        finally:
            self._waiting -= 1
        loop = asyncio.get_running_loop()
        running = self._threads.submit(copy_context().run, deed, *arguments)  # the request's id is in its logs

        def free(_: "Future[_Result]") -> None:
            # when the thread is done, not when its caller has lost patience
            loop.call_soon_threadsafe(self._free.release)

        running.add_done_callback(free)
        return await asyncio.shield(asyncio.wrap_future(running))

    def close(self) -> None:
        """Lets running deeds end."""
        self._threads.shutdown(wait=True)
