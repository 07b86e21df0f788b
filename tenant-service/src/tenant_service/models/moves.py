"""Moves of practices between servers."""

from pydantic import Field

from shared.models import StrictBody
from tenant_service.config import SERVER_KEY


class MoveOrder(StrictBody):
    """Where a practice is to go."""

    to: str = Field(pattern=rf"^{SERVER_KEY}$", description="The key of an open server.")
