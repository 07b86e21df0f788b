"""Questions to the whole fleet."""

from typing import Annotated

from pydantic import AfterValidator, Field

from shared.models import StrictBody
from tenant_service.single_query import check


def _single(query: str) -> str:
    check(query)
    return query


class QueryOrder(StrictBody):
    """What every shard is asked."""

    query: Annotated[str, AfterValidator(_single)] = Field(
        min_length=1,
        max_length=10_000,
        description="One SELECT that writes nothing.",
        examples=["select count(*) from patients"],
    )
    deadline_s: float = Field(
        default=30, gt=0, le=600, strict=False, description="Who hasn't answered by then has failed."
    )
