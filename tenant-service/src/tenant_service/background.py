"""Work that nobody asked for by a request: repeated for as long as the process lives."""

import asyncio
import contextlib
from collections.abc import Callable

from shared.logs import describe_fault, get_logger

RETRY_S = 0.5
LONGEST_RETRY_S = 10.0
_log = get_logger()


async def repeat(deed: Callable[[], bool], *, name: str, every_s: float, wanted: asyncio.Event | None = None) -> None:
    """Runs a blocking deed in a thread again and again: after `every_s` when it says True, sooner while it fails.

    At once when it becomes `wanted`, also when that was during the deed.
    """
    wanted = wanted or asyncio.Event()
    retry_s = RETRY_S
    while True:
        wanted.clear()
        try:
            succeeded = await asyncio.to_thread(deed)
        except Exception as fault:  # noqa: BLE001 - one failed round must not end all further ones
            _log.warning("background_round_failed", deed=name, **describe_fault(fault))
            succeeded = False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wanted.wait(), every_s if succeeded else min(retry_s, every_s))
        retry_s = RETRY_S if succeeded else min(retry_s * 2, LONGEST_RETRY_S)
