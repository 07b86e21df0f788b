"""Staff and invitations."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from auth_service.models.common import BodyWithEmail, GivenPassword, Role
from auth_service.models.passwords import MailToken
from shared.models import PlainText, StrictBody, Success


class InviteBody(BodyWithEmail):
    """Whom to invite, as what."""

    role: Role


class AcceptBody(StrictBody):
    """The mail's token; name and password of a new person, or the password that a known one has."""

    token: MailToken
    name: Annotated[PlainText, Field(min_length=1, max_length=100, examples=["Ann Lee"])]
    password: GivenPassword


class RoleBody(StrictBody):
    """The role from now on."""

    role: Role


class SwitchBody(StrictBody):
    """The practice to work in."""

    practice_id: Annotated[UUID, Field(strict=False)]


class InvitationShown(BaseModel):
    id: UUID
    email: str
    role: Role
    created_at: str
    sent_at: str
    expires_at: str
    is_expired: bool


class OneInvitation(Success):
    result: InvitationShown


class InvitationsPage(BaseModel):
    data: list[InvitationShown]
    next_cursor: str | None = None


class InvitationsFound(Success):
    """Open invitations, expired ones too."""

    result: InvitationsPage


class Joined(BaseModel):
    practice_id: UUID
    email: str
    role: Role


class InvitationAccepted(Success):
    """Log in with the e-mail and the password."""

    result: Joined


class MemberShown(BaseModel):
    """`last_used_at` is the last log-in to this practice."""

    id: UUID
    name: str
    email: str
    role: Role
    created_at: str
    last_used_at: str | None


class OneMember(Success):
    result: MemberShown


class MembersPage(BaseModel):
    data: list[MemberShown]
    next_cursor: str | None = None


class MembersFound(Success):
    result: MembersPage


class WorkplaceShown(BaseModel):
    """`current` is the practice of the token that asks."""

    id: UUID
    name: str
    role: Role
    status: Literal["active", "suspended", "closing"]
    current: bool


class WorkplacesList(BaseModel):
    data: list[WorkplaceShown]


class WorkplacesFound(Success):
    result: WorkplacesList
