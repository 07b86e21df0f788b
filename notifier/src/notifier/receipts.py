"""Tells auth-service's outbox what became of an event, so that it is not published again."""

from typing import Self

import httpx

from notifier.config import RECEIPT_TIMEOUT_S, Settings
from notifier.exceptions import ReceiptNotTakenError
from shared.client import service_client
from shared.events import Outcome
from shared.logs import get_logger

_PATH = "/internal/receipts"
_log = get_logger()


class Receipts:
    """Signed calls to auth-service."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    @classmethod
    def to(cls, settings: Settings) -> Self:
        """Connects on first use."""
        return cls(
            service_client(
                settings.auth_service_url, name="notifier", keys=settings.gateway_keys, timeout_s=RECEIPT_TIMEOUT_S
            )
        )

    def send(self, event_id: str, outcome: Outcome, *, detail: str) -> None:
        """Reports an outcome; may be repeated. Raises ReceiptNotTakenError when it has to be."""
        receipt = {"event_id": event_id, "outcome": outcome, "detail": detail}
        try:
            answer = self._client.post(_PATH, json=receipt)
        except httpx.HTTPError as fault:
            raise ReceiptNotTakenError(f"auth-service: {type(fault).__name__}") from fault
        if answer.status_code == httpx.codes.NOT_FOUND:
            # an outbox restored to an older state doesn't know the event: nobody waits for this receipt
            _log.warning("receipt_for_unknown_event", event_id=event_id)
        elif not answer.is_success:
            raise ReceiptNotTakenError(f"auth-service answered {answer.status_code}")
