"""How many calls of one practice are carried at once: a flood of one waits for itself, not for all the others."""

from gateway.exceptions import PracticeOverloadedError

RETRY_AFTER_S = 1


class PracticeShares:
    """Counts the calls under way. Anonymous callers and the admin have no practice and aren't counted."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._under_way: dict[str, int] = {}

    def enter(self, practice_id: str) -> None:
        """Lets a call begin; `leave` follows. Raises PracticeOverloadedError."""
        count = self._under_way.get(practice_id, 0)
        if count >= self._limit and practice_id:
            raise PracticeOverloadedError(retry_after_s=RETRY_AFTER_S)
        self._under_way[practice_id] = count + 1

    def leave(self, practice_id: str) -> None:
        """A call that had entered is over."""
        count = self._under_way[practice_id] - 1
        if count:
            self._under_way[practice_id] = count
        else:
            del self._under_way[practice_id]
