"""What gateways poll every second: the changes after the number they know."""

from dataclasses import dataclass

from auth_service.database import Database
from auth_service.storage import changes
from auth_service.storage.changes import Change
from shared.changes import MAX_CHANGES

MARGIN_S = 60
"""Added to the tokens' life: clocks differ, and a change's time is its transaction's beginning."""


@dataclass(frozen=True, slots=True)
class News:
    """Changes in order, and the number to ask after next. `is_reset`: forget what you knew, this is all there is."""

    changes: list[Change]
    last: int
    is_reset: bool


class Revocations:
    """The feed of changes."""

    def __init__(self, database: Database, *, token_life_s: int) -> None:
        self._database = database
        self.relevant_s = token_life_s + MARGIN_S

    async def after(self, seq: int | None) -> News:
        """What came after; without a number, or with one that a restored database never gave, all that matters."""
        return await self._database.run(self._read, seq)

    def _read(self, seq: int | None) -> News:
        with self._database.engine.begin() as connection:
            # a number that is visible has no smaller one still to come: see storage.changes
            last = changes.last_seq(connection)
            is_reset = seq is not None and seq > last
            if seq is None or is_reset:
                found = changes.changes_in_force(connection, age_s=self.relevant_s, until=last, limit=MAX_CHANGES)
            else:
                found = changes.changes_between(connection, seq, until=last, limit=MAX_CHANGES)
        return News(found, found[-1].seq if len(found) == MAX_CHANGES else last, is_reset)
