"""The tables of schema `auth`. Alembic's migrations make them; a test compares the two."""

from auth_service.schema.accounts import (
    api_keys,
    invitations,
    known_devices,
    mail_tokens,
    recovery_codes,
    second_factors,
    sessions,
)
from auth_service.schema.base import SCHEMA, interval, metadata
from auth_service.schema.operations import audit, changes, outbox
from auth_service.schema.practices import abandoned_signups, deletion_records, memberships, people, practices

__all__ = [
    "SCHEMA",
    "abandoned_signups",
    "api_keys",
    "audit",
    "changes",
    "deletion_records",
    "interval",
    "invitations",
    "known_devices",
    "mail_tokens",
    "memberships",
    "metadata",
    "outbox",
    "people",
    "practices",
    "recovery_codes",
    "second_factors",
    "sessions",
]
