"""API keys: what auth-service says of one, remembered for a minute.

A key is asked for by its digest, so that it never leaves the gateway. Its claims are those of a token whose session is
the key itself: revoking a key and ending a session are one mechanism (`revocations.py`).
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.asking import Asker, NoAnswerError
from gateway.exceptions import InvalidTokenError
from gateway.revocations import Revocations
from gateway.tokens import invalid_token
from shared.api_keys import PREFIX, digest_of, is_well_formed
from shared.claims import AccessClaims
from shared.errors import UnavailableError
from shared.roles import API_KEY

ASK_AGAIN_S = 60.0
"""Also how exactly auth-service knows when a key was last used."""
STALE_AFTER_S = 15 * 60.0
"""A key that was good is believed so long while auth-service is away, as tokens are."""
REFUSED_S = 10.0
"""A key that nobody knows is asked for again after this time."""
MAX_ENTRIES = 10_000
ASK_TIMEOUT_S = 2.0
RETRY_AFTER_S = 2
START = PREFIX.encode()


@dataclass(frozen=True, slots=True)
class _Known:
    """What was said of a key, and when; None: nobody knows it."""

    claims: AccessClaims | None
    asked_at: float


class ApiKeys:
    """Turns a key into claims; bounded, one question at a time for each key."""

    def __init__(self, asker: Asker, revocations: Revocations, *, clock: Callable[[], float] = time.time) -> None:
        self._asker = asker
        self._revocations = revocations
        self._clock = clock
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._refused: OrderedDict[bytes, _Known] = OrderedDict()
        """By themselves: anybody can make up keys, and none of these may push out a good one."""
        self._asked: dict[bytes, asyncio.Task[_Known]] = {}

    def recall(self, key: bytes) -> AccessClaims | None:
        """The claims of a key that was good within the last minute and wasn't revoked since."""
        known = self._known.get(key)
        if known is None or known.claims is None:
            return None
        now = self._clock()
        if now - known.asked_at >= ASK_AGAIN_S or known.claims.expires_at <= now:
            return None
        return None if self._revocations.refuses(known.claims) else known.claims

    async def verify(self, key: bytes) -> AccessClaims:
        """The claims of a good key. Raises InvalidTokenError, or UnavailableError while nobody can be asked."""
        if not is_well_formed(key.decode("latin-1")):
            raise _refused()
        known = self._known.get(key) or self._refused.get(key)
        if known is None or self._is_old(known):
            known = await self._ask(key, known)
        if known.claims is None or self._revocations.refuses(known.claims):
            raise _refused()
        if known.claims.expires_at <= self._clock():
            raise invalid_token("The API key expired")
        return known.claims

    def _is_old(self, known: _Known) -> bool:
        return self._clock() - known.asked_at >= (ASK_AGAIN_S if known.claims else REFUSED_S)

    async def _ask(self, key: bytes, before: _Known | None) -> _Known:
        question = self._asked.get(key)
        if question is None:
            question = asyncio.create_task(self._question(key, before))
            self._asked[key] = question
            question.add_done_callback(lambda _: self._asked.pop(key, None))
        # shielded: several calls may wait for it, and one that goes away mustn't take the answer from the others
        return await asyncio.shield(question)

    async def _question(self, key: bytes, before: _Known | None) -> _Known:
        asked_at = self._clock()
        digest = digest_of(key.decode("latin-1")).hex()
        try:
            status, answer = await self._asker.get(f"/internal/api-keys/{digest}", timeout_s=ASK_TIMEOUT_S)
            known = _Known(_claims_in(status, answer), asked_at)
        except NoAnswerError as fault:
            if before is not None and before.claims is not None and asked_at - before.asked_at < STALE_AFTER_S:
                return before
            raise UnavailableError(retry_after_s=RETRY_AFTER_S) from fault
        self._known.pop(key, None)
        self._refused.pop(key, None)
        kept = self._known if known.claims else self._refused
        kept[key] = known
        if len(kept) > MAX_ENTRIES:
            kept.popitem(last=False)
        return known


def _claims_in(status: int, answer: Any) -> AccessClaims | None:
    """What was answered; None for an unknown key. Raises NoAnswerError."""
    if status == 404:  # noqa: PLR2004 - HTTP's Not Found
        return None
    try:
        if status != 200:  # noqa: PLR2004 - HTTP's OK
            raise NoAnswerError
        expires_at, permissions = answer["expires_at"], answer["permissions"]
        if not permissions:
            raise NoAnswerError
        return AccessClaims(
            person_id="",
            practice_id=str(answer["practice_id"]),
            session_id=str(answer["id"]),
            role=API_KEY,
            token_id=str(answer["id"]),
            issued_at=int(answer["created_at"]),
            expires_at=_FOREVER if expires_at is None else int(expires_at),
            scope=" ".join(permissions),
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise NoAnswerError from fault


_FOREVER = 2**62


def _refused() -> InvalidTokenError:
    return invalid_token("The API key is not valid")
