"""The one table that says who may do what. A further role is a further row."""

from enum import StrEnum


class Permission(StrEnum):
    """A deed that a role may be allowed."""

    PATIENTS_READ = "patients:read"
    PATIENTS_WRITE = "patients:write"
    PATIENTS_DELETE = "patients:delete"
    PRACTICE_READ = "practice:read"
    PLATFORM_READ = "platform:read"
    PLATFORM_OPERATE = "platform:operate"


ADMIN = "admin"
OWNER = "owner"

PERMISSIONS: dict[str, frozenset[Permission]] = {
    # the platform's admin operates practices and never sees a patient
    ADMIN: frozenset({Permission.PLATFORM_READ, Permission.PLATFORM_OPERATE}),
    OWNER: frozenset(
        {
            Permission.PATIENTS_READ,
            Permission.PATIENTS_WRITE,
            Permission.PATIENTS_DELETE,
            Permission.PRACTICE_READ,
        }
    ),
}


def allows(role: str, permission: Permission) -> bool:
    """Whether the role may do it. An unknown role may do nothing."""
    return permission in PERMISSIONS.get(role, frozenset())
