"""How bodies are read: strict JSON types, no unknown members, text without control characters."""

import unicodedata
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
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
