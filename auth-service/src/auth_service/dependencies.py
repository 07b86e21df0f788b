"""What handlers ask for, by name. The parts are made once, in main."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

from auth_service.admin_sessions import AdminSessions
from auth_service.api_keys import ApiKeys
from auth_service.audit_reading import AuditReading
from auth_service.closing import Closing
from auth_service.email_verification import EmailVerification
from auth_service.invitations import Invitations
from auth_service.listing import Listing
from auth_service.login import LoggingIn
from auth_service.origin import Origin, origin_of
from auth_service.password_change import PasswordChange
from auth_service.policy import Policy
from auth_service.receipts import Receipts
from auth_service.revocations import Revocations
from auth_service.second_factor import SecondFactors
from auth_service.sessions import Sessions
from auth_service.signup import SigningUp
from auth_service.staff import Staff
from auth_service.suspension import Suspension
from auth_service.tokens import AccessTokens
from shared.app import CallerDep


@dataclass(frozen=True, slots=True)
class Rules:
    """The service's rules, ready for use."""

    signing_up: SigningUp
    logging_in: LoggingIn
    sessions: Sessions
    password_change: PasswordChange
    email_verification: EmailVerification
    second_factors: SecondFactors
    staff: Staff
    invitations: Invitations
    api_keys: ApiKeys
    audit_reading: AuditReading
    admin_sessions: AdminSessions
    policy: Policy
    listing: Listing
    suspension: Suspension
    closing: Closing
    receipts: Receipts
    revocations: Revocations
    access_tokens: AccessTokens


async def _rules(request: Request) -> Rules:
    rules = request.app.state.rules
    assert isinstance(rules, Rules)
    return rules


async def _origin(
    request: Request,
    caller: CallerDep,
    user_agent: Annotated[str, Header(include_in_schema=False)] = "",
) -> Origin:
    return origin_of(caller, user_agent=user_agent, request_id=str(request.scope["state"]["request_id"]))


RulesDep = Annotated[Rules, Depends(_rules)]
OriginDep = Annotated[Origin, Depends(_origin)]
