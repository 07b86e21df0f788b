"""What all tables share: the schema's name, how constraints are named, times and spans."""

from datetime import timedelta

from sqlalchemy import Column, ColumnElement, DateTime, MetaData, func

SCHEMA = "auth"

metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    },
)


def time_column(name: str, *, nullable: bool = False) -> Column[object]:
    """A moment in UTC; now, unless it may be missing."""
    default = None if nullable else func.now()
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=default)


def interval(seconds: float | ColumnElement[float]) -> ColumnElement[timedelta]:
    """A span of time in an SQL expression."""
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)
