"""What isolates one practice, check by check: the catalog compared with what provisioning makes, and log-ins tried.

A damage shows at the practice whose database or role is damaged, not at those who could now reach it.
"""

import secrets
import uuid
from collections.abc import Iterator
from typing import NamedTuple

import psycopg2
import psycopg2.extensions

from shared.shards import FLEET_STAMP, PRACTICE_STAMP, shard_password
from tenant_service import catalog, isolation_facts, shard_database
from tenant_service.isolation_facts import DatabaseFacts, RoleFacts
from tenant_service.server_admin import MAINTENANCE_DATABASE, Access, AdminSession
from tenant_service.server_check import SCRAM, refusal
from tenant_service.templates import SHARD_GROUP

_NEEDED = frozenset((SHARD_GROUP, f"{right} on patients") for right in ("SELECT", "INSERT", "UPDATE"))
_ALLOWED = ("SELECT on ", "INSERT on ", "UPDATE on ")
"""Rights of the group on tables. Nobody else has any, and nobody at all may delete, truncate or change them."""
_ROLE_SETTINGS = {*shard_database.ROLE_SETTINGS.items(), ("connection limit", str(shard_database.CONNECTION_LIMIT))}


class Check(NamedTuple):
    """One thing that isolates, and whether it is as it should be. The detail says how it is."""

    name: str
    ok: bool
    detail: str


class CentralDatabase(NamedTuple):
    """Where the central database is; the access names nobody."""

    access: Access
    name: str


class ServerFacts(NamedTuple):
    """A server under examination. Databases and roles are by name; `keys` are the secrets of the shards' passwords."""

    access: Access
    session: AdminSession
    fleet_id: uuid.UUID
    central: CentralDatabase
    keys: tuple[bytes, ...]
    databases: dict[str, DatabaseFacts]
    roles: dict[str, RoleFacts]


def check_practice(server: ServerFacts, database: str, practice_id: uuid.UUID) -> list[Check]:
    """Every check of one practice. Raises what servers.FAULTS lists when the server goes away meanwhile."""
    facts, role = server.databases.get(database), server.roles.get(database)
    if facts is None:
        return [Check("database", ok=False, detail=f"there is no database {database}")]
    checks = list(_of_database(server, facts, database, practice_id))
    if role is None:
        return [*checks, Check("role", ok=False, detail=f"there is no role {database}")]
    return [*checks, *_of_role(role), *_of_log_ins(server, database), *_inside(server, database)]


def faults_of_copy(server: ServerFacts, database: str, practice_id: uuid.UUID) -> list[str]:
    """What lets anybody but the server's admin in to a copy of a practice's data, or lets it pass for a shard."""
    facts, role = server.databases.get(database), server.roles.get(database)
    if facts is None:
        return ["there is no such database"]
    stamps = {(PRACTICE_STAMP, shard_database.copy_stamp(practice_id)), (FLEET_STAMP, str(server.fleet_id))}
    checks = (
        _equal("public", facts.rights_of_public, set(), what="rights of PUBLIC on the database"),
        _equal("connect", _told(facts.grants), set(), what="rights of roles on the database"),
        _equal("stamps", _told(facts.settings), _told(stamps), what="settings of the database"),
    )
    lets_in = ["its role may log in"] if role is not None and role.can_log_in else []
    return [check.detail for check in checks if not check.ok] + lets_in


def _of_database(server: ServerFacts, facts: DatabaseFacts, database: str, practice_id: uuid.UUID) -> Iterator[Check]:
    stamps = {(PRACTICE_STAMP, str(practice_id)), (FLEET_STAMP, str(server.fleet_id))}
    is_open = facts.is_open and not facts.is_template
    yield Check("open", is_open, "takes connections" if is_open else "takes no connections, or is a template")
    yield _equal("public", facts.rights_of_public, set(), what="rights of PUBLIC on the database")
    yield _equal("connect", _told(facts.grants), {f"{database} CONNECT"}, what="rights of roles on the database")
    yield _equal("stamps", _told(facts.settings), _told(stamps), what="settings of the database")


def _of_role(role: RoleFacts) -> Iterator[Check]:
    yield Check("role", role.can_log_in, "a login role of its own" if role.can_log_in else "may not log in")
    yield _equal("role_rights", role.rights, set(), what="rights on the server")
    yield _equal("role_membership", role.memberships, {SHARD_GROUP}, what="groups")
    yield _equal("role_settings", _told(role.settings), _told(_ROLE_SETTINGS), what="settings of the role")


def _of_log_ins(server: ServerFacts, database: str) -> Iterator[Check]:
    """Tried, as the role. A refusal leaves a line in the server's log."""
    password, told = _password(server, database)
    yield Check("log_in", told is None, f"by {SCRAM}, to its own database" if told is None else told)
    wrong = secrets.token_hex(16)
    yield _refused("wrong_password", server.access, database, role=database, password=wrong)
    neighbour = _neighbour(server, database)
    if neighbour is None:
        yield Check("other_practice", ok=True, detail="no other practice has its database on this server")
    else:
        yield _refused("other_practice", server.access, neighbour, role=database, password=password)
    central = server.central
    yield _refused("central_database", central.access, central.name, role=database, password=password)
    for name in (MAINTENANCE_DATABASE, "template1"):
        yield _refused(name, server.access, name, role=database, password=password)


def _password(server: ServerFacts, database: str) -> tuple[str, str | None]:
    """The password that the role logs in with, or the newest and why it doesn't."""
    newest, told = "", None
    for key in server.keys:
        password = shard_password(key, database)
        told = refusal(server.access._replace(user=database, password=password), database, require_auth=SCRAM)
        if told is None:
            return password, None
        newest = newest or password
    return newest, _without_place(told or "")


def _refused(name: str, access: Access, database: str, *, role: str, password: str) -> Check:
    told = refusal(access._replace(user=role, password=password), database)
    return Check(name, told is not None, f"let in to {database}" if told is None else _without_place(told))


def _neighbour(server: ServerFacts, database: str) -> str | None:
    """The next shard of the fleet whose own rights are whole: who gets in there does so by a right of its own."""

    def is_whole(name: str, facts: DatabaseFacts) -> bool:
        is_ours = (FLEET_STAMP, str(server.fleet_id)) in facts.settings
        return is_ours and facts.is_open and not facts.rights_of_public and facts.grants == {(name, "CONNECT")}

    whole = sorted(name for name, facts in server.databases.items() if name != database and is_whole(name, facts))
    return next((name for name in whole if name > database), whole[0] if whole else None)


def _inside(server: ServerFacts, database: str) -> list[Check]:
    """What the database itself holds, seen by its owner."""
    try:
        with server.session.inside(database) as connection:
            return list(_of_relations(connection, server.access.user))
    except psycopg2.OperationalError as fault:
        return [Check("tables", ok=False, detail=_without_place(str(fault).strip()))]


def _of_relations(connection: psycopg2.extensions.connection, admin: str) -> Iterator[Check]:
    found = isolation_facts.relations(connection)
    allowed = {(role, right) for role, right in found.grants if role == SHARD_GROUP and right.startswith(_ALLOWED)}
    yield _equal("tables", _told(found.grants), _told(allowed | _NEEDED), what="rights of roles on tables")
    others = {f"{name} belongs to {owner}" for owner, name in found.owners if owner != admin}
    yield _equal("owner", others, set(), what=f"tables of others than {admin}")
    yield _schema(connection)


def _schema(connection: psycopg2.extensions.connection) -> Check:
    """The whole catalog, compared with what the database's own revision leads to."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT version_num FROM public.alembic_version")
        ((revision,),) = cursor.fetchall()
    try:
        differences = catalog.differences(catalog.read(connection), catalog.expected(revision))
    except OSError:
        return Check("schema", ok=False, detail=f"revision {revision} is not known")
    return Check("schema", not differences, catalog.told(differences) or f"what revision {revision} leads to")


def _equal(name: str, found: set[str], expected: set[str], *, what: str) -> Check:
    told = [f"{what}: {', '.join(sorted(found)) or 'none'}"]
    told += [f"{word}: {', '.join(sorted(wrong))}" for word, wrong in _differences(found, expected) if wrong]
    return Check(name, found == expected, "; ".join(told))


def _differences(found: set[str], expected: set[str]) -> Iterator[tuple[str, set[str]]]:
    yield "missing", expected - found
    yield "not to be there", found - expected


def _told(pairs: set[tuple[str, str]] | frozenset[tuple[str, str]]) -> set[str]:
    return {" ".join(pair) for pair in pairs}


def _without_place(told: str) -> str:
    """Libpq's words without the address, which everybody knows who asks."""
    return told.partition(" failed: ")[2] or told
