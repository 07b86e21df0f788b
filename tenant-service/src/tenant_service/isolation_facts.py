"""What PostgreSQL's catalog says of shards and their roles. Reads only; what it should say is judged elsewhere."""

import uuid
from collections.abc import Sequence
from typing import NamedTuple

import psycopg2.extensions

from shared.shards import FLEET_STAMP
from tenant_service.server_admin import AdminSession

MOST_NEIGHBOURS = 50
"""So many further shards of the fleet are looked at: one that is whole is enough."""


class DatabaseFacts(NamedTuple):
    """A database. `grants` are (role, right) of all but PUBLIC and the owner, `settings` (name, value)."""

    owner: str
    is_open: bool
    is_template: bool
    rights_of_public: set[str]
    grants: set[tuple[str, str]]
    settings: set[tuple[str, str]]


class RoleFacts(NamedTuple):
    """A login role. `memberships` are the groups it is in, and `member …` whoever is in it besides the admin."""

    can_log_in: bool
    rights: set[str]
    memberships: set[str]
    settings: set[tuple[str, str]]


class RelationFacts(NamedTuple):
    """The relations of a shard: (role, `right on name`) of all but their owners, and (owner, name)."""

    grants: set[tuple[str, str]]
    owners: set[tuple[str, str]]


_DATABASES = r"""
WITH mine AS (
    SELECT d.oid FROM pg_database d JOIN pg_db_role_setting s ON s.setdatabase = d.oid AND s.setrole = 0
    WHERE d.datname LIKE 'shard\_%%' AND d.datallowconn AND %(stamp)s = ANY (s.setconfig)
    ORDER BY d.datname LIMIT %(neighbours)s
)
SELECT d.datname, pg_get_userbyid(d.datdba), d.datallowconn, d.datistemplate,
    array(SELECT a.privilege_type FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
          WHERE a.grantee = 0),
    (SELECT jsonb_agg(jsonb_build_array(pg_get_userbyid(a.grantee), a.privilege_type))
     FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a WHERE a.grantee NOT IN (0, d.datdba)),
    (SELECT s.setconfig FROM pg_db_role_setting s WHERE s.setdatabase = d.oid AND s.setrole = 0)
FROM pg_database d WHERE d.datname = ANY (%(names)s) OR d.oid IN (SELECT oid FROM mine)
"""

_ROLES = """
SELECT r.rolname, r.rolcanlogin,
    array_remove(ARRAY[CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolcreatedb THEN 'CREATEDB' END,
        CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END,
        CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END], NULL),
    array(SELECT g.rolname || CASE WHEN m.admin_option THEN ' with its admin option' ELSE '' END
          FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid)
    || array(SELECT 'member ' || g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.member
             WHERE m.roleid = r.oid AND g.rolname <> current_user),
    (SELECT jsonb_agg(jsonb_build_array(
        split_part(one, '=', 1) || coalesce(' in ' || d.datname, ''), substr(one, strpos(one, '=') + 1)))
     FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) one
     WHERE s.setrole = r.oid),
    r.rolconnlimit
FROM pg_roles r WHERE r.rolname = ANY (%s)
"""

_RELATIONS = """
WITH relations AS (
    SELECT c.oid, c.relname AS name, c.relowner AS owner, c.relacl AS acl FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
)
SELECT pg_get_userbyid(r.owner), r.name, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END,
    a.privilege_type || ' on ' || r.name
FROM relations r LEFT JOIN LATERAL aclexplode(r.acl) a ON a.grantee <> r.owner
UNION ALL
SELECT pg_get_userbyid(r.owner), r.name, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END,
    a.privilege_type || ' on ' || r.name || '.' || t.attname
FROM relations r JOIN pg_attribute t ON t.attrelid = r.oid, aclexplode(t.attacl) a WHERE a.grantee <> r.owner
UNION ALL
SELECT NULL, NULL, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END,
    a.privilege_type || ' on schema ' || n.nspname
FROM pg_namespace n, aclexplode(n.nspacl) a
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND a.grantee <> n.nspowner
    AND a.privilege_type <> 'USAGE'
"""


def databases(session: AdminSession, names: Sequence[str], fleet_id: uuid.UUID) -> dict[str, DatabaseFacts]:
    """The databases of these names, and some more of the fleet."""
    parameters = {"names": list(names), "stamp": f"{FLEET_STAMP}={fleet_id}", "neighbours": MOST_NEIGHBOURS}
    return {
        name: DatabaseFacts(
            owner, is_open, is_template, set(public), {(role, right) for role, right in grants or ()}, _pairs(settings)
        )
        for name, owner, is_open, is_template, public, grants, settings in session.rows(_DATABASES, parameters)
    }


def roles(session: AdminSession, names: Sequence[str]) -> dict[str, RoleFacts]:
    """The roles of these names; the connection limit is among their settings."""
    return {
        name: RoleFacts(
            can_log_in,
            set(rights),
            set(memberships),
            {(setting, value) for setting, value in settings or ()} | {("connection limit", str(limit))},
        )
        for name, can_log_in, rights, memberships, settings, limit in session.rows(_ROLES, (list(names),))
    }


def relations(connection: psycopg2.extensions.connection) -> RelationFacts:
    """What the database at hand holds."""
    with connection.cursor() as cursor:
        cursor.execute(_RELATIONS)
        rows = cursor.fetchall()
    return RelationFacts(
        {(grantee, right) for _, _, grantee, right in rows if grantee is not None},
        {(owner, name) for owner, name, _, _ in rows if name is not None},
    )


def _pairs(settings: Sequence[str] | None) -> set[tuple[str, str]]:
    return {(name, value) for name, _, value in (setting.partition("=") for setting in settings or ())}
