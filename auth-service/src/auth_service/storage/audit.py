"""The audit: what happened to accounts. Entries are only ever added, which the database sees to."""

from typing import Any

from sqlalchemy import Connection, insert

from auth_service.schema import audit

_INSERT = insert(audit)


def add_entry(connection: Connection, entry: dict[str, Any]) -> None:
    """Adds an entry, by the table's columns, in the transaction that makes it true."""
    connection.execute(_INSERT, entry)
