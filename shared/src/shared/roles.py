"""The one table that says who may do what. A further role is a further row."""

from enum import StrEnum

from shared.context import Caller
from shared.errors import ForbiddenError, SecondFactorNeededError


class Permission(StrEnum):
    """A deed that a role may be allowed."""

    PATIENTS_READ = "patients:read"
    PATIENTS_WRITE = "patients:write"
    PATIENTS_DELETE = "patients:delete"
    PRACTICE_READ = "practice:read"
    PRACTICE_MANAGE = "practice:manage"
    STAFF_MANAGE = "staff:manage"
    API_KEYS_MANAGE = "api-keys:manage"
    AUDIT_READ = "audit:read"
    ACCOUNT_MANAGE = "account:manage"
    """One's own: sessions, password, second factor."""
    PLATFORM_READ = "platform:read"
    PLATFORM_OPERATE = "platform:operate"


ADMIN = "admin"
OWNER = "owner"
CLINICIAN = "clinician"
RECEPTIONIST = "receptionist"
AUDITOR = "auditor"
API_KEY = "api-key"

STAFF_ROLES = (OWNER, CLINICIAN, RECEPTIONIST, AUDITOR)
"""What a person can be in a practice."""

_PATIENTS = {Permission.PATIENTS_READ, Permission.PATIENTS_WRITE, Permission.PATIENTS_DELETE}
_EVERYBODY = {Permission.PRACTICE_READ, Permission.ACCOUNT_MANAGE}

API_KEY_PERMISSIONS = frozenset({*_PATIENTS, Permission.AUDIT_READ})
"""What a key may be given."""

PERMISSIONS: dict[str, frozenset[Permission]] = {
    # the platform's admin operates practices and never sees a patient
    ADMIN: frozenset({Permission.PLATFORM_READ, Permission.PLATFORM_OPERATE}),
    OWNER: frozenset(
        {
            *_EVERYBODY,
            *_PATIENTS,
            Permission.PRACTICE_MANAGE,
            Permission.STAFF_MANAGE,
            Permission.API_KEYS_MANAGE,
            Permission.AUDIT_READ,
        }
    ),
    CLINICIAN: frozenset({*_EVERYBODY, *_PATIENTS}),
    RECEPTIONIST: frozenset({*_EVERYBODY, Permission.PATIENTS_READ, Permission.PATIENTS_WRITE}),
    AUDITOR: frozenset({*_EVERYBODY, Permission.PATIENTS_READ, Permission.AUDIT_READ}),
    # never without a scope, which says what this one may do of it
    API_KEY: API_KEY_PERMISSIONS,
}


def demand(caller: Caller, permission: Permission) -> None:
    """Raises ForbiddenError, or SecondFactorNeededError where only that is missing, unless the caller may do it."""
    if allows(caller, permission):
        return
    if caller.role in STAFF_ROLES and permission in PERMISSIONS[caller.role]:
        raise SecondFactorNeededError  # nothing else limits a person's token
    raise ForbiddenError


def allows(caller: Caller, permission: Permission) -> bool:
    """Whether the caller may do it: by the role, and by the scope if there is one. An unknown role may do nothing."""
    if permission not in PERMISSIONS.get(caller.role, frozenset()):
        return False
    return permission in caller.scope.split() if caller.scope else caller.role != API_KEY
