"""What a shard's database consists of, read from PostgreSQL's own catalog, and what it should consist of.

The stamp says how far a shard believes to be; this says how far it is. What each revision leads to stands beside its
migration (`migrations/shard/<revision>.catalog`), so a change of a migration shows what it changes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

import psycopg2.extensions

_QUERY = (Path(__file__).parent / "catalog.sql").read_text(encoding="utf-8")
_EXPECTED = Path(__file__).parent / "migrations" / "shard"
MOST_LINES_TOLD = 20

Catalog = tuple[str, ...]
"""One thing a line: a table, a column, a constraint, an index, a right."""


def read(connection: psycopg2.extensions.connection) -> Catalog:
    """The catalog of the database that this connection is to, in its transaction. Raises psycopg2.Error.

    Leaves the transaction with an empty search_path, so that every name is written out.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL search_path = ''; " + _QUERY)
        ((lines,),) = cursor.fetchall()
    return tuple(lines)


@cache
def expected(revision: str) -> Catalog:
    """What migrations up to this revision lead to. Raises OSError for a revision that doesn't exist."""
    return tuple((_EXPECTED / f"{revision}.catalog").read_text(encoding="utf-8").splitlines())


def fingerprint(catalog: Catalog) -> str:
    """SHA-256 of the catalog. Equal ones have the same things, owners and rights."""
    return sha256("\n".join(catalog).encode()).hexdigest()


def differences(found: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """What is there and shouldn't be as `+ …`, what is missing as `- …`; empty when both are equal."""
    surplus, missing = Counter(found) - Counter(wanted), Counter(wanted) - Counter(found)
    return [f"- {line}" for line in missing.elements()] + [f"+ {line}" for line in surplus.elements()]


def told(lines: Iterable[str]) -> str:
    """Differences as a text for people, the first 20."""
    shown = list(lines)
    more = [f"and {len(shown) - MOST_LINES_TOLD} more"] if len(shown) > MOST_LINES_TOLD else []
    return "\n".join(shown[:MOST_LINES_TOLD] + more)
