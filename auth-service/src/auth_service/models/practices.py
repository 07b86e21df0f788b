"""Practices: signing up, listing, operating."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from auth_service.common_passwords import is_one_of
from auth_service.models.common import BodyWithEmail, NewPassword, Role
from shared.models import PlainText, StrictBody, Success


class SignUpBody(BodyWithEmail):
    """A practice that signs up; the e-mail and the password are its owner's."""

    name: Annotated[PlainText, Field(min_length=3, max_length=50, examples=["Sunrise Clinic"])]
    password: NewPassword

    @field_validator("password")
    @classmethod
    def _is_no_name(cls, password: str, info: ValidationInfo) -> str:
        if is_one_of(password, info.data.get("email", ""), info.data.get("name", "")):
            raise PydanticCustomError("guessable_password", "This is the e-mail or the name; choose another password")
        return password


class PracticeShown(BaseModel):
    """A practice. The admin also sees `status`."""

    id: UUID
    name: str
    email: str
    status: str | None = None


class PracticeDetails(PracticeShown):
    """A practice as its operator sees it."""

    status: Literal["provisioning", "active", "suspended", "closing", "closed"]
    database_name: str | None
    created_at: str


class PracticePage(BaseModel):
    """A page; `next_cursor` is there when more follow."""

    data: list[PracticeShown]
    next_cursor: str | None = None


class PracticeDetailsPage(BaseModel):
    """The same with all details."""

    data: list[PracticeDetails]
    next_cursor: str | None = None


class SignedUp(Success):
    """A registered practice."""

    result: PracticeShown


class OnePractice(Success):
    """A practice as it is now, with its status."""

    result: PracticeShown


class PracticesFound(Success):
    """A page of practices."""

    result: PracticePage


class PracticeDetailsFound(Success):
    """A page of practices for their operator."""

    result: PracticeDetailsPage


class PolicyBody(StrictBody):
    """The roles of which the practice wants a second factor."""

    second_factor_roles: Annotated[list[Role], Field(max_length=4)]


class PolicyShown(BaseModel):
    second_factor_roles: list[Role]


class PolicyFound(Success):
    result: PolicyShown
