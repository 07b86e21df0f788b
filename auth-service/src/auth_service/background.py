"""Work that goes on beside the requests: repeated for ever, woken early when there is something to do."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from shared.errors import UnavailableError
from shared.logs import describe_fault, get_logger

_log = get_logger()


async def repeat(
    work: Callable[[], Awaitable[None]], *, name: str, every_s: float, wake: asyncio.Event | None = None
) -> NoReturn:
    """Runs the work, then again after a pause or when woken. A fault ends one round, never the loop."""
    wake = wake or asyncio.Event()
    while True:
        wake.clear()
        try:
            await work()
        except UnavailableError:
            _log.warning("background_work_waits", work=name)
        except Exception as fault:  # noqa: BLE001 - the next round may succeed
            _log.error("background_work_failed", work=name, **describe_fault(fault))
        try:
            async with asyncio.timeout(every_s):
                await wake.wait()
        except TimeoutError:
            continue
