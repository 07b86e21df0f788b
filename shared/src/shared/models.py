"""How bodies are read (strict JSON types, no unknown members, plain text) and how API documents show errors."""

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _plain_text(value: Any) -> Any:
    """Trims; refuses control characters: PostgreSQL stores no NUL, and a line break could start a mail header."""
    if not isinstance(value, str):
        return value
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in value):
        raise PydanticCustomError("control_character", "Control characters are not allowed")
    return value.strip()


PlainText = Annotated[str, BeforeValidator(_plain_text)]


class StrictBody(BaseModel):
    """A request body. `"3"`, `true` and `3.0` are no integers, and what isn't listed is refused."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)


class Success(BaseModel):
    """The envelope of a success; a route's own answer adds `result`."""

    success: Literal[True]
    status: int
    message: str


class Fault(BaseModel):
    """One fault of a validation."""

    field: str
    message: str


class Problem(BaseModel):
    """Any error: RFC 9457's members in the product's envelope, as `shared.errors` renders them."""

    success: Literal[False]
    status: int
    message: str
    type: str
    title: str
    detail: str
    instance: str = Field(description="The request's id.")
    errors: list[Fault] | None = Field(default=None, description="Of a validation: every fault.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """A route's documented errors, as FastAPI's `responses` takes them."""
    return {status: {"model": Problem} for status in statuses}
