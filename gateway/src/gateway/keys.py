"""The public keys that access tokens are checked with: auth-service's JWKS, fetched without blocking the loop."""

import asyncio
import base64
import binascii
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.asking import Asker, NoAnswerError
from shared.errors import UnavailableError
from shared.logs import get_logger

JWKS_PATH = "/.well-known/jwks.json"
FETCH_TIMEOUT_S = 2.0
REFRESH_EVERY_S = 300.0
REFETCH_AFTER_S = 30.0
"""Unknown `kid`s cause at most one fetch in this time: a flood of made-up ones doesn't reach auth-service.

A new key is found nevertheless: auth-service names it whenever it is polled for changes (`announced`).
"""
RETRY_AFTER_S = 1.0
_ED25519_BYTES = 32
_log = get_logger()


class KeyRing:
    """Keys by `kid`."""

    def __init__(self, asker: Asker, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._asker = asker
        self._clock = clock
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._fetch: asyncio.Task[bool] | None = None
        self._next_fetch_at = float("-inf")
        self._failing = False
        self.document: dict[str, Any] | None = None
        self.generation = 0

    @property
    def is_known(self) -> bool:
        """Whether there are keys to check tokens with."""
        return bool(self._keys)

    @property
    def _is_fetching(self) -> bool:
        return self._fetch is not None and not self._fetch.done()

    async def run(self) -> None:
        """Keeps the keys fresh until cancelled."""
        while True:
            fetched = await self._fetch_once()
            await asyncio.sleep(REFRESH_EVERY_S if fetched else RETRY_AFTER_S)

    async def key(self, kid: str) -> Ed25519PublicKey | None:
        """The key, None if there is none of that name. Raises UnavailableError while that can't be known."""
        found = self._keys.get(kid)
        if found is None and self._is_fetching:
            await self._fetch_once()  # which waits for the one under way
            found = self._keys.get(kid)
        elif found is None and self._clock() >= self._next_fetch_at:
            self._next_fetch_at = self._clock() + REFETCH_AFTER_S
            if not await self._fetch_once():
                self._next_fetch_at = self._clock() + RETRY_AFTER_S
            found = self._keys.get(kid)
        if found is None and self._failing:
            raise UnavailableError(retry_after_s=2)
        return found

    async def announced(self, kid: str) -> None:
        """Fetches the keys if the one that signs now isn't known."""
        if kid not in self._keys:
            await self._fetch_once()

    async def _fetch_once(self) -> bool:
        """One fetch at a time; everybody who needs it waits for the same one."""
        if self._fetch is None or self._fetch.done():
            self._fetch = asyncio.create_task(self._fetch_keys())
        return await asyncio.shield(self._fetch)

    async def _fetch_keys(self) -> bool:
        try:
            status, document = await self._asker.get(JWKS_PATH, timeout_s=FETCH_TIMEOUT_S)
            keys = _read(status, document)
        except NoAnswerError:
            if not self._failing:
                _log.warning("jwks_unavailable")
            self._failing = True
            return False
        if document != self.document:
            self._keys, self.document = keys, document
            self.generation += 1
        self._failing = False
        return True


def _read(status: int, document: Any) -> dict[str, Ed25519PublicKey]:
    """The Ed25519 keys of a JWKS (RFC 8037). Others are left out. Raises NoAnswerError if none is left."""
    entries = document.get("keys") if status == 200 and isinstance(document, dict) else None  # noqa: PLR2004 - OK
    keys = {}
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("kty") == "OKP" and entry.get("crv") == "Ed25519":
            key = _public_key(entry.get("x"))
            if key and isinstance(entry.get("kid"), str):
                keys[entry["kid"]] = key
    if not keys:
        raise NoAnswerError
    return keys


def _public_key(x: Any) -> Ed25519PublicKey | None:
    try:
        raw = base64.urlsafe_b64decode(f"{x}==")
        return Ed25519PublicKey.from_public_bytes(raw) if len(raw) == _ED25519_BYTES else None
    except (binascii.Error, ValueError):
        return None
