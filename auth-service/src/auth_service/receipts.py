"""The notifier's word that an event was dealt with: it is not published again."""

from auth_service.database import Database
from auth_service.models.internal import ReceiptBody
from auth_service.storage import outbox
from shared.errors import NotFoundError


class Receipts:
    """Notes receipts in the outbox."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, body: ReceiptBody) -> None:
        """Notes a receipt; the same one twice is no error. Raises NotFoundError for an unknown event."""
        if not await self._database.run(self._note, body):
            raise NotFoundError

    def _note(self, body: ReceiptBody) -> bool:
        with self._database.engine.begin() as connection:
            return outbox.note_receipt(connection, body.event_id, outcome=body.outcome, detail=body.detail)
