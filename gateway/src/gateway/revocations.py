"""Sessions that ended before their tokens did."""

from collections.abc import Sequence

from gateway.changes import Change
from shared.changes import SESSION_REVOKED

RELOAD_S = 300.0
"""How often the whole list is read anew: without what is older than a token lives, so that the set stays small."""


class Revocations:
    """The revoked sessions that still matter; listens to auth-service's changes."""

    def __init__(self) -> None:
        self._sessions: set[str] = set()

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._sessions

    def __len__(self) -> int:
        return len(self._sessions)

    def start_over(self, changes: Sequence[Change]) -> None:
        """See changes.Listener."""
        self._sessions = set()
        self.apply(changes)

    def apply(self, changes: Sequence[Change]) -> None:
        """See changes.Listener. Kinds that it doesn't know are left to others."""
        self._sessions.update(
            change["session_id"]
            for change in changes
            if change.get("kind") == SESSION_REVOKED and isinstance(change.get("session_id"), str)
        )
