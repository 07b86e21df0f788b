"""Sessions that ended or changed before their tokens expired, and practices whose sessions rest."""

from collections.abc import Sequence
from math import inf
from typing import Any

from gateway.changes import Change
from shared.changes import PRACTICE_RESUMED, PRACTICE_SUSPENDED, SESSION_CHANGED, SESSION_REVOKED
from shared.claims import AccessClaims

_NEVER, _ALWAYS = -1.0, inf
RELOAD_S = 300.0
"""How often the whole list is read anew: without what is older than a token lives, so that the set stays small."""


class Revocations:
    """The sessions of which tokens are refused, and the suspended practices; listens to auth-service's changes."""

    def __init__(self) -> None:
        self._refused_until: dict[str, float] = {}
        """The last second whose tokens are refused, in unix time; infinite for a session that has ended."""
        self.suspended: set[str] = set()
        """Ids of practices: looked into at each request."""

    def refuses(self, claims: AccessClaims) -> bool:
        """Whether the token's session ended, or changed since the token was issued."""
        return claims.issued_at <= self._refused_until.get(claims.session_id, _NEVER)

    def has_ended(self, session_id: str) -> bool:
        """Whether no token of the session will ever be good again."""
        return self._refused_until.get(session_id) == _ALWAYS

    def __len__(self) -> int:
        return len(self._refused_until)

    def start_over(self, changes: Sequence[Change]) -> None:
        """See changes.Listener."""
        self._refused_until, self.suspended = {}, set()
        self.apply(changes)

    def apply(self, changes: Sequence[Change]) -> None:
        """See changes.Listener. Kinds that it doesn't know are left to others."""
        for change in changes:
            kind, session_id, practice_id = (change.get(name) for name in ("kind", "session_id", "practice_id"))
            if kind == SESSION_REVOKED and isinstance(session_id, str):
                self._refused_until[session_id] = _ALWAYS
            elif kind == SESSION_CHANGED and isinstance(session_id, str):
                self._refuse_until(session_id, change.get("at"))
            elif kind == PRACTICE_SUSPENDED and isinstance(practice_id, str):
                self.suspended.add(practice_id)
            elif kind == PRACTICE_RESUMED and isinstance(practice_id, str):
                self.suspended.discard(practice_id)

    def _refuse_until(self, session_id: str, at: Any) -> None:
        if isinstance(at, int | float):
            self._refused_until[session_id] = max(at, self._refused_until.get(session_id, _NEVER))
