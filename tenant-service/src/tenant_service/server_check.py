"""What a server must be before a practice is put there. Each fault is named, all that can be found at once.

Says what is wrong, never what to do about it: server_registration.py knows who asks.
"""

import contextlib
import secrets
from typing import NamedTuple

import psycopg2
from psycopg2 import sql

from shared.shards import FLEET_STAMP, PRACTICE_STAMP, new_database_name
from tenant_service import templates
from tenant_service.server_admin import MAINTENANCE_DATABASE, Access, AdminSession, ServerAdmin

OLDEST_VERSION = 150_000
"""CREATE DATABASE … STRATEGY and GRANT … ON PARAMETER came with PostgreSQL 15."""
PUBLIC_DATABASES = (MAINTENANCE_DATABASE, "template1")
"""Every server has them, and lets everybody in until it is told not to. Databases of others are not ours to judge."""
SCRAM = "scram-sha-256"
_NOT_SCRAM = "authentication method requirement"
"""How libpq begins to say that a server asked for something else than SCRAM."""
_NO_ENTRY = "no pg_hba.conf entry"
_UNVERIFIED = frozenset({"disable", "allow", "prefer"})
"""Values of sslmode that do without encryption."""


class Fault(NamedTuple):
    """What is wrong: the matter in a word, and how it is wrong."""

    matter: str
    message: str


def max_connections(session: AdminSession) -> int:
    """Of the whole server. Raises what servers.FAULTS lists."""
    ((allowed,),) = session.rows("SELECT current_setting('max_connections')::int")
    return int(allowed)


def version_faults(session: AdminSession) -> list[Fault]:
    """An older server can't even be asked the other questions."""
    if session.version >= OLDEST_VERSION:
        return []
    return [Fault("version", f"PostgreSQL 15 or newer is needed; this is version {session.version // 10_000}")]


def rights_faults(session: AdminSession) -> list[Fault]:
    """What the catalog tells: the admin's rights, and whom the server lets in. Raises what servers.FAULTS lists."""
    faults = []
    if missing := missing_rights(session):
        faults.append(Fault("rights", f"its admin role lacks {', '.join(missing)}"))
    if public := [name for (name,) in session.rows(_OPEN_TO_PUBLIC, (list(PUBLIC_DATABASES),))]:
        faults.append(Fault("public", f"PUBLIC may connect to {', '.join(public)}"))
    return faults


_OPEN_TO_PUBLIC = (
    "SELECT datname FROM pg_database"
    " WHERE datname = ANY (%s) AND datallowconn AND has_database_privilege('public', oid, 'CONNECT') ORDER BY 1"
)


def missing_rights(session: AdminSession) -> list[str]:
    """What `prepare-server` would give to the admin role and it doesn't have. Raises what servers.FAULTS lists."""
    ((createdb, createrole, group, signal, stamps),) = session.rows(
        "SELECT rolcreatedb OR rolsuper, rolcreaterole OR rolsuper,"
        " (SELECT pg_has_role(oid, 'MEMBER WITH ADMIN OPTION') FROM pg_roles WHERE rolname = %(group)s),"
        " pg_has_role('pg_signal_backend', 'USAGE'),"
        " has_parameter_privilege(%(practice)s, 'SET') AND has_parameter_privilege(%(fleet)s, 'SET')"
        " FROM pg_roles WHERE rolname = current_user",
        {"group": templates.SHARD_GROUP, "practice": PRACTICE_STAMP, "fleet": FLEET_STAMP},
    )
    rights = {
        "CREATEDB": createdb,
        "CREATEROLE": createrole,
        f"the admin option of {templates.SHARD_GROUP}": group,
        "pg_signal_backend": signal,
        "SET on the stamps": stamps,
    }
    return [name for name, present in rights.items() if not present]


def template_faults(admin: ServerAdmin) -> list[Fault]:
    """Makes the template if it is missing. Only an admin with all rights can. Raises OperationalError."""
    try:
        templates.ensure_template(admin)
    except psycopg2.OperationalError:
        raise
    except psycopg2.Error as fault:  # no C.UTF-8, above all
        return [Fault("template", f"no database for shards can be made: {_first_line(fault)}")]
    return []


def door_faults(access: Access) -> list[Fault]:
    """How the server lets roles in. Each probe leaves a line in the server's log. Raises OperationalError."""
    with contextlib.closing(access.connect(MAINTENANCE_DATABASE)) as connection:
        is_encrypted = connection.info.ssl_in_use
    faults = []
    if access.sslmode not in _UNVERIFIED and not is_encrypted:  # libpq's rule for unix sockets
        faults.append(Fault("tls", f"sslmode {access.sslmode} encrypts nothing on a unix socket; say prefer"))
    stranger = new_database_name()
    for role, database, who in (
        (access.user, MAINTENANCE_DATABASE, f"its admin role {access.user}"),
        (stranger, stranger, "roles of shards"),
    ):
        told = refusal(access._replace(user=role, password=secrets.token_hex(16)), database, require_auth=SCRAM)
        if told is None or _NOT_SCRAM in told:
            faults.append(Fault("password", f"its pg_hba.conf lets in {who} without {SCRAM}"))
        elif _NO_ENTRY in told:
            faults.append(Fault("password", f"its pg_hba.conf has no entry for {who}"))
    return faults


def refusal(access: Access, database: str, **parameters: str) -> str | None:
    """Why nobody gets in there; None when it lets in."""
    try:
        access.connect(database, **parameters).close()
    except psycopg2.OperationalError as fault:
        return _first_line(fault)
    return None


def _first_line(fault: Exception) -> str:
    return str(fault).strip().partition("\n")[0]


def prepare_what_it_may(session: AdminSession) -> None:
    """Does of `prepare-server` what this admin has the right to: all as a superuser, else perhaps the group.

    What stays undone is found by the checks.
    """
    group = sql.Identifier(templates.SHARD_GROUP)
    if not session.rows("SELECT 1 FROM pg_roles WHERE rolname = %s", (templates.SHARD_GROUP,)):
        with contextlib.suppress(psycopg2.errors.InsufficientPrivilege, psycopg2.errors.DuplicateObject):
            session.run(sql.SQL("CREATE ROLE {} NOLOGIN").format(group))
    if f"the admin option of {templates.SHARD_GROUP}" in missing_rights(session):
        # since PostgreSQL 16 whoever makes a role has it
        with contextlib.suppress(psycopg2.errors.InsufficientPrivilege, psycopg2.errors.UndefinedObject):
            session.run(sql.SQL("GRANT {} TO CURRENT_USER WITH ADMIN OPTION").format(group))
    for database in PUBLIC_DATABASES:
        with contextlib.suppress(psycopg2.errors.InsufficientPrivilege):
            session.run(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)))
