"""One shard's database and login role on its server. Every act may be repeated after an interruption.

Whoever changes anything holds the database's lock (ServerAdmin.locked). The order is what isolates: nobody can connect
before PUBLIC has lost its rights and the stamps are set. Three steps: cloned (closed), furnished (role, rights, the
fleet's stamp; closed), handed over (the practice's stamp; open).
"""

import time
import uuid
from typing import NamedTuple

import psycopg2.errors
from psycopg2 import sql

from shared.shards import FLEET_STAMP, PRACTICE_STAMP, shard_password
from tenant_service.exceptions import FenceLeakyError
from tenant_service.scram import DERIVED_ITERATIONS, scram_verifier
from tenant_service.server_admin import AdminSession, Statement
from tenant_service.templates import SHARD_GROUP

CONNECTION_LIMIT = 8
"""Sessions of one shard role: the connections that all patient-service processes may hold for one practice."""
_SET_OPTION = 160_000
"""GRANT … WITH SET came with PostgreSQL 16."""
_SESSIONS_END_WITHIN_S = 5.0
_QUIET_LOOKS = 3
_LOOK_EVERY_S = 0.02
_TRIES = 2
"""PostgreSQL itself waits 5 s for others to leave a database that is renamed."""
ROLE_SETTINGS = {
    # a group's settings aren't inherited, so each role has its own
    "statement_timeout": "5s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "10s",
}


_COPY_OF = "copy:"
"""Begins the stamp of a copy: it is never taken for the practice's shard, nor for one that nobody has claimed."""
_UNKNOWN = "unknown"
"""Stamped on what is quarantined and bears no practice's stamp: it might have been a practice's."""
_END_ALL_SESSIONS = (
    "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid"
    " WHERE a.datname = %s AND NOT r.rolsuper"
)
_FOUND = (
    "SELECT d.datname, d.datallowconn, coalesce(s.setconfig, '{}') FROM pg_database d"
    " LEFT JOIN pg_db_role_setting s ON s.setdatabase = d.oid AND s.setrole = 0"
)


class StampedDatabase(NamedTuple):
    """A database as its server knows it. Stamps are None where there are none."""

    database: str
    practice_stamp: str | None
    fleet_stamp: str | None
    open: bool

    @property
    def practice_id(self) -> uuid.UUID | None:
        """Whose it is; None when the stamp is missing or no UUID."""
        try:
            return uuid.UUID(self.practice_stamp)
        except (TypeError, ValueError):
            return None

    @property
    def was_claimed(self) -> bool:
        """Whether it may ever have been a practice's: it gets that stamp in the transaction that opens it."""
        return self.open or self.practice_stamp is not None


def find(session: AdminSession, database: str) -> StampedDatabase | None:
    """The database as it is now."""
    rows = session.rows(f"{_FOUND} WHERE d.datname = %s", (database,))
    return _stamped(*rows[0]) if rows else None


def _stamped(database: str, is_open: bool, settings: list[str]) -> StampedDatabase:  # noqa: FBT001 - a row's column
    stamps = dict(setting.split("=", 1) for setting in settings)
    return StampedDatabase(database, stamps.get(PRACTICE_STAMP), stamps.get(FLEET_STAMP), is_open)


def clone(session: AdminSession, database: str, *, template: str) -> None:
    """Makes the database, closed to everybody, unless it is there."""
    if find(session, database) is None:
        session.run(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY wal_log ALLOW_CONNECTIONS false").format(
                sql.Identifier(database), sql.Identifier(template)
            )
        )


def open_to_its_role(
    session: AdminSession, database: str, *, practice_id: uuid.UUID, fleet_id: uuid.UUID, key: bytes
) -> None:
    """Role, rights, stamps, then connections: in one transaction. The password is derived from `key`."""
    session.run(*_furnishing(session, database, fleet_id, key), *_handing_over(database, practice_id))


def furnish(session: AdminSession, database: str, *, fleet_id: uuid.UUID, key: bytes) -> None:
    """All of it but the practice's stamp: the database stays closed until it is handed over."""
    session.run(*_furnishing(session, database, fleet_id, key))


def hand_over(session: AdminSession, database: str, *, practice_id: uuid.UUID) -> None:
    """The rest for a furnished database: the practice's stamp, then connections, in one transaction."""
    session.run(*_handing_over(database, practice_id))


def _furnishing(session: AdminSession, database: str, fleet_id: uuid.UUID, key: bytes) -> list[Statement]:
    name = sql.Identifier(database)
    verifier = sql.Literal(scram_verifier(shard_password(key, database), iterations=DERIVED_ITERATIONS))
    return [
        *([] if _has_role(session, database) else [sql.SQL("CREATE ROLE {}").format(name)]),
        sql.SQL("ALTER ROLE {} LOGIN PASSWORD {} CONNECTION LIMIT {}").format(
            name, verifier, sql.Literal(CONNECTION_LIMIT)
        ),
        _membership(session, name),
        *(
            sql.SQL("ALTER ROLE {} SET {} = {}").format(name, sql.Identifier(setting), sql.Literal(value))
            for setting, value in ROLE_SETTINGS.items()
        ),
        sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name),
        sql.SQL("GRANT CONNECT ON DATABASE {0} TO {0}").format(name),
        _stamp(database, FLEET_STAMP, str(fleet_id)),
    ]


def _handing_over(database: str, practice_id: uuid.UUID) -> list[Statement]:
    return [
        _stamp(database, PRACTICE_STAMP, str(practice_id)),
        sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(database)),
    ]


def _membership(session: AdminSession, name: sql.Identifier) -> Statement:
    """A shard's role inherits the group's rights but can't become the group, and so can't change its settings.

    PostgreSQL 15 has no way to say so: there, SET ROLE stays possible to whoever already speaks as a shard's role.
    """
    grant = "GRANT {} TO {} WITH INHERIT TRUE, SET FALSE" if session.version >= _SET_OPTION else "GRANT {} TO {}"
    return sql.SQL(grant).format(sql.Identifier(SHARD_GROUP), name)


def _stamp(database: str, setting: str, value: str) -> Statement:
    return sql.SQL("ALTER DATABASE {} SET {} = {}").format(
        sql.Identifier(database), sql.Identifier(*setting.split(".")), sql.Literal(value)
    )


def open_as_copy(session: AdminSession, database: str, *, practice_id: uuid.UUID, fleet_id: uuid.UUID) -> None:
    """Makes of a clone, or of a shard, a copy of the practice's data: stamped as such, and open to the admin alone."""
    name = sql.Identifier(database)
    session.run(
        *([sql.SQL("ALTER ROLE {} NOLOGIN").format(name)] if _has_role(session, database) else []),
        *([sql.SQL("REVOKE ALL ON DATABASE {0} FROM {0}").format(name)] if _has_role(session, database) else []),
        sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name),
        _stamp(database, FLEET_STAMP, str(fleet_id)),
        _stamp(database, PRACTICE_STAMP, copy_stamp(practice_id)),
        sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name),
        sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name),
    )
    _end_sessions(session, database)


def copy_stamp(practice_id: uuid.UUID) -> str:
    """What a copy bears where a shard bears its practice's id."""
    return f"{_COPY_OF}{practice_id}"


def is_copy_of(found: StampedDatabase, practice_id: uuid.UUID) -> bool:
    """Whether the database bears the stamp of such a copy."""
    return found.practice_stamp == copy_stamp(practice_id)


def fence(session: AdminSession, database: str) -> None:
    """Nobody but the admin connects or writes any more, and no session of the shard's role is left at the end.

    Raises FenceLeakyError when one remains. A session that was just being opened shows itself late: it is read-only
    then, and it is looked for again.
    """
    name = sql.Identifier(database)
    session.run(
        sql.SQL("REVOKE CONNECT ON DATABASE {0} FROM {0}").format(name),
        sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name),
    )
    deadline = time.monotonic() + _SESSIONS_END_WITHIN_S
    quiet = 0
    while quiet < _QUIET_LOOKS:
        quiet = 0 if _end_sessions(session, database) else quiet + 1
        if time.monotonic() > deadline:
            raise FenceLeakyError
        time.sleep(_LOOK_EVERY_S)


def is_quiet(session: AdminSession, database: str) -> bool:
    """Whether nobody is connected as the shard's role."""
    return not session.rows("SELECT 1 FROM pg_stat_activity WHERE datname = %s AND usename = %s", (database, database))


def oid_of(session: AdminSession, database: str) -> int | None:
    """What the database is, whatever its name."""
    rows = session.rows("SELECT oid::bigint FROM pg_database WHERE datname = %s", (database,))
    return int(rows[0][0]) if rows else None


def exchange(session: AdminSession, live: str, copy: str, *, practice_id: uuid.UUID) -> None:
    """The copy becomes the practice's shard, and its shard the copy: in one transaction, by their names and stamps.

    The shard's role, its password and its place in the directory stay as they are. Both must be fenced or closed to
    the practice; whoever else is connected is cut off. Raises ObjectInUse for a superuser, whom nobody may cut off.
    """
    former, latter, between = sql.Identifier(live), sql.Identifier(copy), sql.Identifier(f"{live}_exchanged")
    for tries_left in reversed(range(_TRIES)):
        for database in (live, copy):
            session.rows(_END_ALL_SESSIONS, (database,))
        try:
            session.run(
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(former, between),
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(latter, former),
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(between, latter),
                _stamp(copy, PRACTICE_STAMP, copy_stamp(practice_id)),
                sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(latter, former),
                sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(latter),
                _stamp(live, PRACTICE_STAMP, str(practice_id)),
                sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(former),
                sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(former),
                sql.SQL("GRANT CONNECT ON DATABASE {0} TO {0}").format(former),
            )
        except psycopg2.errors.ObjectInUse:
            if not tries_left:
                raise
            time.sleep(_LOOK_EVERY_S)
        else:
            return


def lift_fence(session: AdminSession, database: str) -> None:
    """The shard's role may connect and write again."""
    name = sql.Identifier(database)
    session.run(
        sql.SQL("GRANT CONNECT ON DATABASE {0} TO {0}").format(name),
        sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name),
    )


def lock_out(session: AdminSession, database: str) -> None:
    """Ends the shard role's sessions and lets it log in no more; its data stays."""
    if _has_role(session, database):
        session.run(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(database)))
    _end_sessions(session, database)


def close(session: AdminSession, database: str) -> None:
    """Nobody can connect any more, and nobody is connected as the shard's role; its data stays.

    What bears no practice's stamp gets one, so that it is never taken for a shard that nobody has claimed.
    """
    found = find(session, database)
    if found and found.open:
        session.run(
            *([_stamp(database, PRACTICE_STAMP, _UNKNOWN)] if found.practice_stamp is None else []),
            sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(database)),
        )
    _end_sessions(session, database)


def _end_sessions(session: AdminSession, database: str) -> int:
    """How many there were."""
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = %s"
    return len(session.rows(query, (database, database)))


def holds_rows(session: AdminSession, database: str) -> bool:
    """Whether anybody ever stored anything in the shard. One that was never opened can't hold a row."""
    found = find(session, database)
    if found is None or not found.open:
        return False
    with session.inside(database) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        )
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT EXISTS (SELECT FROM {table})")  # noqa: S608 - quoted by format('%I')
            if cursor.fetchall() == [(True,)]:
                return True
    return False


def drop(session: AdminSession, database: str) -> None:
    """Drops the database, whoever is connected, and its role."""
    name = sql.Identifier(database)
    session.run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
    session.run(sql.SQL("DROP ROLE IF EXISTS {}").format(name))


def stamped_with(session: AdminSession, fleet_id: uuid.UUID) -> dict[str, StampedDatabase]:
    """The shards on a server that bear this fleet's stamp, by name."""
    rows = session.rows(
        rf"{_FOUND} WHERE d.datname LIKE 'shard\_%%' AND %s = ANY (s.setconfig)", (f"{FLEET_STAMP}={fleet_id}",)
    )
    return {row[0]: _stamped(*row) for row in rows}


def _has_role(session: AdminSession, name: str) -> bool:
    return bool(session.rows("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)))
