"""Who did what to which account, when, from where, and with what outcome.

An entry is written in the transaction of the deed itself, so that none is without the other. No entry holds a secret,
nor what somebody typed who is unknown: people type passwords into the wrong field.
"""

from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from auth_service.origin import Origin
from auth_service.storage import audit
from shared.ids import new_id
from shared.roles import ADMIN, API_KEY

SUCCESS, FAILURE = "success", "failure"


class Action(StrEnum):
    """What is noted. A further one is a further line."""

    SIGNED_UP = "practice.signed-up"
    PRACTICE_SUSPENDED = "practice.suspended"
    PRACTICE_RESUMED = "practice.resumed"
    PRACTICE_CLOSING = "practice.closing"
    CLOSING_UNDONE = "practice.closing-undone"
    PRACTICE_EXPORTED = "practice.exported"
    PRACTICE_CLOSED = "practice.closed"
    LOGGED_IN = "session.logged-in"
    LOGGED_OUT = "session.logged-out"
    REFRESH_REUSED = "session.refresh-reused"
    SESSION_ENDED = "session.ended"
    SESSIONS_ENDED = "session.all-ended"
    SWITCHED = "session.switched"
    STAFF_INVITED = "staff.invited"
    INVITATION_SENT_AGAIN = "staff.invitation-sent-again"
    INVITATION_REVOKED = "staff.invitation-revoked"
    STAFF_JOINED = "staff.joined"
    STAFF_REMOVED = "staff.removed"
    ROLE_CHANGED = "staff.role-changed"
    KEY_MADE = "api-key.made"
    KEY_REVOKED = "api-key.revoked"
    POLICY_CHANGED = "practice.policy-changed"
    SECOND_FACTOR_BEGUN = "second-factor.begun"
    SECOND_FACTOR_ENABLED = "second-factor.enabled"
    SECOND_FACTOR_REMOVED = "second-factor.removed"
    RECOVERY_CODES_RENEWED = "second-factor.recovery-codes-renewed"
    EMAIL_VERIFIED = "email.verified"
    VERIFICATION_SENT = "email.verification-sent"
    PASSWORD_FORGOTTEN = "password.forgotten"  # noqa: S105 - a deed's name
    PASSWORD_RESET = "password.reset"  # noqa: S105
    PASSWORD_CHANGED = "password.changed"  # noqa: S105


def note(
    connection: Connection,
    action: Action,
    origin: Origin,
    *,
    practice_id: UUID | None = None,
    person_id: UUID | None = None,
    outcome: str = SUCCESS,
    target: str | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Adds an entry within the caller's transaction. `practice_id` and `person_id` default to the caller's own."""
    caller = origin.caller
    actor, actor_id = _actor(origin)
    audit.add_entry(
        connection,
        {
            "id": new_id(),
            "practice_id": practice_id or origin.practice_id,
            "actor": actor,
            "actor_id": actor_id,
            "action": action,
            "outcome": outcome,
            "person_id": person_id or origin.person_id,
            "target": target,
            "session_id": origin.session_id,
            "address": caller.client_address,
            "user_agent": origin.user_agent,
            "request_id": origin.request_id,
            "detail": detail or {},
        },
    )


def _actor(origin: Origin) -> tuple[str, str | None]:
    """The kind of the caller and its id. An API key's context carries the key's id as its session."""
    caller = origin.caller
    if caller.role == API_KEY:
        return "api-key", caller.session_id
    if origin.person_id:
        return "person", str(origin.person_id)
    if caller.role == ADMIN:
        return "admin", None
    return ("service", caller.role) if caller.is_service else ("anonymous", None)
