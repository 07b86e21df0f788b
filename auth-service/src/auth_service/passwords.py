"""Passwords become hashes here and nowhere else: NFKC, base64 of SHA-384, bcrypt, on a bounded pool of threads.

bcrypt stops at 72 bytes and at a NUL; the pre-hash makes 64 plain characters of any password.
"""

import asyncio
import base64
import functools
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha384
from typing import TypeVar

import bcrypt

from auth_service.exceptions import HashingBusyError

MAX_WAIT_S = 8.0
MAX_WAITING = 500
_SCHEME = "bcrypt-sha384:"
_RETRY_AFTER_S = 5

_Result = TypeVar("_Result")


class PasswordHasher:
    """Hashes and verifies; more than it can do in time is refused with HashingBusyError."""

    def __init__(self, *, cost: int, workers: int) -> None:
        self._cost = cost
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="hash")
        self._free = asyncio.Semaphore(workers)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """The text to store."""
        return await self._run(functools.partial(_hash, password, cost=self._cost))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether this is the password. Takes as long when nothing is stored, or with an older cost."""
        return await self._run(functools.partial(_verify, password, stored, cost=self._cost))

    def is_outdated(self, stored: str) -> bool:
        """Whether the password should be hashed anew, because the cost rose."""
        return _cost_of(stored) < self._cost

    def close(self) -> None:
        """Ends the threads; running hashes are waited for."""
        self._threads.shutdown(cancel_futures=True)

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        if self._waiting >= MAX_WAITING:
            raise HashingBusyError(retry_after_s=_RETRY_AFTER_S)
        self._waiting += 1
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                await self._free.acquire()
        except TimeoutError as fault:
            raise HashingBusyError(retry_after_s=_RETRY_AFTER_S) from fault
        finally:
            self._waiting -= 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # released when the thread is done, not when its caller went away
        future.add_done_callback(lambda _: self._free.release())
        return await asyncio.shield(future)


def _prehash(password: str) -> bytes:
    return base64.b64encode(sha384(unicodedata.normalize("NFKC", password).encode()).digest())


def _hash(password: str, *, cost: int) -> str:
    return _SCHEME + bcrypt.hashpw(_prehash(password), bcrypt.gensalt(cost)).decode()


def _verify(password: str, stored: str | None, *, cost: int) -> bool:
    known = stored or _nobodys_hash(cost)
    correct = bcrypt.checkpw(_prehash(password), known.removeprefix(_SCHEME).encode())
    for missing in range(_cost_of(known), cost if not correct else 0):
        # 2^c + 2^c + 2^(c+1) + … = 2^cost: a refusal takes as long for an account with an older hash
        bcrypt.hashpw(b"", bcrypt.gensalt(missing))
    return correct and stored is not None


def _nobodys_hash(cost: int) -> str:
    return f"{_SCHEME}$2b${cost:02d}${'.' * 53}"


def _cost_of(stored: str) -> int:
    return int(stored.removeprefix(_SCHEME).split("$")[2])
