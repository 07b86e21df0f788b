"""Work that nobody asked for by a request: repeated for as long as the process lives."""

import asyncio
from collections.abc import Callable

from shared.logs import describe_fault, get_logger

RETRY_S = 0.5
LONGEST_RETRY_S = 10.0
_log = get_logger()


async def repeat(deed: Callable[[], bool], *, name: str, every_s: float) -> None:
    """Runs a blocking deed in a thread again and again: after `every_s` when it says True, sooner while it fails."""
    retry_s = RETRY_S
    while True:
        try:
            succeeded = await asyncio.to_thread(deed)
        except Exception as fault:  # noqa: BLE001 - one failed round must not end all further ones
            _log.warning("background_round_failed", deed=name, **describe_fault(fault))
            succeeded = False
        await asyncio.sleep(every_s if succeeded else min(retry_s, every_s))
        retry_s = RETRY_S if succeeded else min(retry_s * 2, LONGEST_RETRY_S)
