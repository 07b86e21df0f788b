"""What clients send and what they are answered. Answers are described here; PostgreSQL makes their bytes."""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, Field
from pydantic.types import UUID7

from patient_service.schema import MAX_MOBILE_CHARACTERS, MAX_NAME_CHARACTERS
from shared.models import PlainText, StrictBody, Success

MIN_MOBILE_CHARACTERS = 5
MAX_AGE_YEARS = 150
_DIGITS_AND_SIGNS = rf"^[ +()\-]*([0-9][ +()\-]*){{{MIN_MOBILE_CHARACTERS},{MAX_MOBILE_CHARACTERS}}}$"

PatientName = Annotated[
    PlainText,
    Field(min_length=1, max_length=MAX_NAME_CHARACTERS, description="Trimmed.", examples=["John Doe"]),
]
Age = Annotated[int, Field(ge=0, le=MAX_AGE_YEARS, description="In years.", examples=[30])]
Mobile = Annotated[
    str,
    Field(
        min_length=MIN_MOBILE_CHARACTERS,
        max_length=MAX_MOBILE_CHARACTERS,
        pattern=_DIGITS_AND_SIGNS,
        description="As people write it: digits, at least five, spaces and `+ - ( )`. Kept as it was sent.",
        examples=["9876543210"],
    ),
]


class PatientBody(StrictBody):
    """A patient, whole."""

    name: PatientName
    age: Age
    mobile: Mobile


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


_UNCHANGED: Any = Field(default=None, json_schema_extra=_without_default)
"""An absent member. A `null` that is sent is refused: the type has none (RFC 7396 would mean to remove it)."""


class PatientChanges(StrictBody):
    """What is to change of a patient."""

    name: PatientName = _UNCHANGED
    age: Age = _UNCHANGED
    mobile: Mobile = _UNCHANGED


class Patient(BaseModel):
    """A patient as stored."""

    id: UUID7
    name: str
    age: int
    mobile: str
    is_deleted: Literal[0, 1]
    created_at: AwareDatetime
    updated_at: AwareDatetime
    version: int = Field(description="Grows with each change.")


class PatientPage(BaseModel):
    """Active patients in the order of their creation."""

    data: list[Patient]
    next_cursor: str | None = Field(default=None, description="Continues the list; absent on its last page.")


class PatientAnswer(Success):
    """One patient."""

    result: Patient


class PatientPageAnswer(Success):
    """A page of patients."""

    result: PatientPage


class DoneAnswer(Success):
    """Nothing to return."""
