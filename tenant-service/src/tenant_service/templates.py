"""The template that shards are cloned from: one for each server and revision. Nobody connects to it once it is whole.

A clone carries its tables, their owner and the group's rights, but no right on the database itself.
"""

from psycopg2 import sql

from tenant_service import catalog, migrating
from tenant_service.exceptions import TemplateDriftedError
from tenant_service.server_admin import AdminSession, ServerAdmin

SHARD_GROUP = "shard_rw"
"""NOLOGIN role that holds the rights on a shard's tables; each shard's login role is its member."""
LOCALE = "C.UTF-8"
"""Sorts alike everywhere; PostgreSQL 15 knows it from the operating system."""


def template_name() -> str:
    """The template with the newest schema."""
    return f"gowebbo_template_{migrating.head(migrating.SHARD)}"


def is_ready(server: ServerAdmin) -> bool:
    """Whether the template is there and whole. Raises OperationalError."""
    with server.session() as session:
        return _is_whole(session)


def _is_whole(session: AdminSession) -> bool:
    query = "SELECT 1 FROM pg_database WHERE datname = %s AND datistemplate AND NOT datallowconn"
    return bool(session.rows(query, (template_name(),)))


def ensure_template(server: ServerAdmin) -> None:
    """Makes the template unless it is there; one that was left half-made is made anew. Takes about a second.

    Raises OperationalError, TemplateDriftedError.
    """
    if is_ready(server):
        return
    name = template_name()
    database = sql.Identifier(name)
    with server.apart() as admin, admin.locked(name) as session:
        if _is_whole(session):
            return
        session.run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(database))
        make_database(session, name, revision=migrating.head(migrating.SHARD))
        session.run(
            sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database),
            # the mark of a whole template, and from here on nobody can get in the way of a clone
            sql.SQL("ALTER DATABASE {} IS_TEMPLATE true ALLOW_CONNECTIONS false").format(database),
        )


def make_database(session: AdminSession, name: str, *, revision: str) -> None:
    """A database of a shard's schema at this revision. PUBLIC may still connect to it.

    Raises TemplateDriftedError: what isn't as described, whatever the reason, is never used.
    """
    session.run(
        sql.SQL(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER libc LC_COLLATE {} LC_CTYPE {}"
        ).format(sql.Identifier(name), *[sql.Literal(LOCALE)] * 2)
    )
    with session.inside(name) as connection, connection:
        with connection.cursor() as cursor:
            cursor.execute(migrating.shard_script(None, revision))
        if differences := catalog.differences(catalog.read(connection), catalog.expected(revision)):
            raise TemplateDriftedError(catalog.told(differences))
