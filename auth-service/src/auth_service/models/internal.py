"""What other services send."""

from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from shared.events import Outcome
from shared.models import StrictBody

_MAX_DETAIL = 500


def _shortened(detail: str) -> str:
    """A mail server's words, whatever they are: a receipt must not fail for them."""
    return "".join(filter(str.isprintable, detail))[:_MAX_DETAIL]


class ReceiptBody(StrictBody):
    """What became of an event."""

    event_id: Annotated[UUID, Field(strict=False)]
    outcome: Outcome
    detail: Annotated[str, AfterValidator(_shortened)] = ""
