"""Sessions that ended before their tokens did, and practices whose sessions rest."""

from collections.abc import Sequence

from gateway.changes import Change
from shared.changes import PRACTICE_RESUMED, PRACTICE_SUSPENDED, SESSION_REVOKED

RELOAD_S = 300.0
"""How often the whole list is read anew: without what is older than a token lives, so that the set stays small."""


class Revocations:
    """The revoked sessions that still matter and the suspended practices; listens to auth-service's changes."""

    def __init__(self) -> None:
        self._sessions: set[str] = set()
        self.suspended: set[str] = set()
        """Ids of practices: looked into at each request."""

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._sessions

    def __len__(self) -> int:
        return len(self._sessions)

    def start_over(self, changes: Sequence[Change]) -> None:
        """See changes.Listener."""
        self._sessions, self.suspended = set(), set()
        self.apply(changes)

    def apply(self, changes: Sequence[Change]) -> None:
        """See changes.Listener. Kinds that it doesn't know are left to others."""
        for change in changes:
            kind, session_id, practice_id = (change.get(name) for name in ("kind", "session_id", "practice_id"))
            if kind == SESSION_REVOKED and isinstance(session_id, str):
                self._sessions.add(session_id)
            elif kind == PRACTICE_SUSPENDED and isinstance(practice_id, str):
                self.suspended.add(practice_id)
            elif kind == PRACTICE_RESUMED and isinstance(practice_id, str):
                self.suspended.discard(practice_id)
