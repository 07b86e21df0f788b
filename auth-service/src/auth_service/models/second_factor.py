"""The second factor."""

from pydantic import BaseModel

from auth_service.models.sessions import Code
from shared.models import StrictBody, Success


class CodeBody(StrictBody):
    """A code of the authenticator app; where it says so, a recovery code."""

    code: Code


class EnrolmentShown(BaseModel):
    """What the authenticator app reads: the picture (SVG) shows the address."""

    uri: str
    secret: str
    svg: str


class Enrolled(Success):
    result: EnrolmentShown


class RecoveryCodes(BaseModel):
    recovery_codes: list[str]


class RecoveryCodesShown(Success):
    """Each is good for one log-in. They can't be shown again."""

    result: RecoveryCodes


class FactorStateShown(BaseModel):
    enabled: bool
    recovery_codes_left: int


class FactorStateFound(Success):
    result: FactorStateShown
