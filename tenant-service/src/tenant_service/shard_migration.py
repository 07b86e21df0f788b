"""One shard: how far it is, whether it is what it should be then, and the step to the newest revision.

The step is one transaction, and what it leads to is compared before it is committed: a shard is at a revision that
somebody has described, or left as it was.
"""

import contextlib
import random
import time
from typing import NamedTuple

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from tenant_service import catalog, migrating
from tenant_service.server_admin import KEEPALIVE_OPTIONS, Access
from tenant_service.storage.ledger import MigrationState

TRIES = 3
"""A lock that isn't given within 2 s is asked for again: a shard is never blocked for longer."""
LONGEST_PAUSE_S = 1.0
_STEP_OPTIONS = f"-c lock_timeout=2s -c statement_timeout=10min {KEEPALIVE_OPTIONS}"
_LOOK_OPTIONS = f"-c lock_timeout=1s -c statement_timeout=2s {KEEPALIVE_OPTIONS}"
_STAMP = "SELECT CASE WHEN count(*) = 1 THEN min(version_num) END FROM public.alembic_version"
_DATA_FAULT = "22"
"""Class of SQLSTATEs whose message may hold a stored value."""
NO_STAMP = "It bears no revision, or several."


class Look(NamedTuple):
    """How far a shard says it is (None: nothing clear), and how it differs from what that revision leads to."""

    revision: str | None
    differences: tuple[str, ...]

    @property
    def is_known(self) -> bool:
        """Whether this release knows the revision; else a newer one made it, or it has none."""
        return self.revision in migrating.shard_revisions()

    @property
    def drift(self) -> str | None:
        """What is wrong with it; None for a shard that is what it says, or that a newer release made."""
        if self.revision is None:
            return NO_STAMP
        return catalog.told(self.differences) or None


class Outcome(NamedTuple):
    """How a visit ended. `look` is the last one, None when nobody could look; `changed`: it is another shard now."""

    state: MigrationState
    look: Look | None
    error: str | None = None
    changed: bool = False


def look(access: Access, database: str) -> Look:
    """Looks at a shard; takes at most some seconds. Raises psycopg2.Error."""
    with contextlib.closing(access.connect(database, options=_LOOK_OPTIONS)) as connection:
        return _look(connection)


def _look(connection: psycopg2.extensions.connection) -> Look:
    revision = revision_in(connection)
    differences: list[str] = []
    if revision in migrating.shard_revisions():
        differences = catalog.differences(catalog.read(connection), catalog.expected(str(revision)))
    connection.rollback()
    return Look(revision, tuple(differences))


def revision_in(connection: psycopg2.extensions.connection) -> str | None:
    """How far a shard says it is; None when it says nothing clear."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(_STAMP)
            ((revision,),) = cursor.fetchall()
    except psycopg2.ProgrammingError:  # no such table or column, or somebody else's
        return None
    return str(revision) if revision is not None else None


def migrate(access: Access, database: str) -> Outcome:
    """Brings a shard to the newest revision, unless it is there. The caller holds the shard's lock.

    Tries again what may go better soon: a lock, a connection. Raises nothing of PostgreSQL's.
    """
    found = None
    for tries_left in reversed(range(TRIES)):
        try:
            with contextlib.closing(access.connect(database, options=_STEP_OPTIONS)) as connection:
                found = _look(connection)
                return _migrate(connection, found)
        except psycopg2.Error as fault:
            if not tries_left or not _is_passing(fault):
                return Outcome(MigrationState.FAILED, found, explain(fault))
        time.sleep(random.uniform(0, LONGEST_PAUSE_S))
    raise AssertionError


def _migrate(connection: psycopg2.extensions.connection, found: Look) -> Outcome:
    head = migrating.head(migrating.SHARD)
    if found.drift:
        return Outcome(MigrationState.DRIFTED, found, found.drift)
    if not found.is_known:
        return Outcome(MigrationState.FAILED, found, f"This release does not know revision {found.revision}.")
    if found.revision == head:
        return Outcome(MigrationState.DONE, found)
    with connection.cursor() as cursor:
        cursor.execute(migrating.shard_script(found.revision, head))
    if differences := catalog.differences(catalog.read(connection), catalog.expected(head)):
        connection.rollback()
        told = catalog.told(differences)
        return Outcome(MigrationState.FAILED, found, f"It was left as it was, for this would have come out:\n{told}")
    connection.commit()
    return Outcome(MigrationState.DONE, Look(head, ()), changed=True)


def _is_passing(fault: psycopg2.Error) -> bool:
    """Whether it may go better soon. A statement that took ten minutes wouldn't."""
    return isinstance(fault, psycopg2.OperationalError) and not isinstance(fault, psycopg2.errors.QueryCanceled)


def explain(fault: Exception) -> str:
    """A fault's text for the operator, without anything that is stored in a shard."""
    fault = getattr(fault, "orig", None) or fault
    state = getattr(fault, "pgcode", None)
    if state is None:
        return " ".join(str(fault).split()) or type(fault).__name__  # libpq's own words: there is no connection
    if state.startswith(_DATA_FAULT):
        return f"A stored value doesn't fit (SQLSTATE {state})."
    diagnosis = getattr(fault, "diag", None)
    return f"{getattr(diagnosis, 'message_primary', None) or type(fault).__name__} (SQLSTATE {state})"
