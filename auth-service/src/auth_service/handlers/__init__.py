"""The door: a request goes to a rule, its result comes back in the envelope. No SQL and no decision here."""

from auth_service.handlers import (
    admin,
    api_keys,
    audit,
    closing,
    internal,
    passwords,
    practices,
    second_factor,
    sessions,
    staff,
)

ROUTERS = (
    practices.router,
    sessions.router,
    passwords.router,
    second_factor.router,
    staff.router,
    api_keys.router,
    audit.router,
    admin.router,
    closing.router,
    internal.keys,
    internal.router,
)
