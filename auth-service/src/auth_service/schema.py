"""The tables of schema `auth`. Alembic's migrations make them; a test compares the two."""

from datetime import timedelta

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

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


def _time(name: str, *, nullable: bool = False) -> Column[object]:
    default = None if nullable else func.now()
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=default)


people = Table(
    "people",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("email", Text, nullable=False, comment="as written"),
    Column("email_key", Text, nullable=False, unique=True, comment="normalised and in lower case"),
    Column("name", Text, nullable=False),
    Column("password", Text, nullable=False, comment="the only hash that log-in reads"),
    _time("created_at"),
    _time("updated_at"),
)

practices = Table(
    "practices",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", String(255), nullable=False),
    Column("email", String(255), nullable=False),
    Column("password", Text, nullable=False, comment="the owner's; written with it, never read"),
    Column("database_name", String(255), nullable=True, unique=True),
    Column("status", Text, nullable=False),
    _time("created_at"),
    _time("updated_at"),
    CheckConstraint("status IN ('provisioning', 'active', 'suspended', 'closing', 'closed')", name="status"),
    CheckConstraint("status = 'provisioning' OR database_name IS NOT NULL", name="has_database"),
)
Index("practices_email_key", func.lower(practices.c.email), unique=True)
Index("practices_provisioning_idx", practices.c.created_at, postgresql_where=text("status = 'provisioning'"))

memberships = Table(
    "memberships",
    metadata,
    Column("person_id", ForeignKey(people.c.id), primary_key=True),
    Column("practice_id", ForeignKey(practices.c.id), primary_key=True),
    Column("role", Text, nullable=False),
    _time("created_at"),
    _time("last_used_at", nullable=True),
)
Index("memberships_practice_id_idx", memberships.c.practice_id)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("person_id", ForeignKey(people.c.id), nullable=False),
    Column("practice_id", ForeignKey(practices.c.id), nullable=False),
    Column("generation", Integer, nullable=False, server_default="0", comment="of the refresh token that is valid"),
    _time("created_at"),
    _time("rotated_at", nullable=True),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    _time("revoked_at", nullable=True),
    Column("user_agent", Text, nullable=False),
    Column("address", Text, nullable=False),
    _time("last_used_at"),
)
Index("sessions_person_id_idx", sessions.c.person_id)
Index("sessions_practice_id_idx", sessions.c.practice_id)
Index("sessions_expires_at_idx", sessions.c.expires_at)

outbox = Table(
    "outbox",
    metadata,
    Column("event", Uuid, primary_key=True),
    Column("type", Text, nullable=False),
    Column("practice_id", Uuid, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("payload", JSONB, nullable=False),
    _time("created_at"),
    _time("next_publish_at"),
    Column("publish_count", Integer, nullable=False, server_default="0"),
    _time("published_at", nullable=True),
    _time("receipted_at", nullable=True),
    Column("outcome", Text, nullable=True),
    Column("detail", Text, nullable=True),
    CheckConstraint("outcome IN ('delivered', 'dead')", name="outcome"),
    CheckConstraint("(outcome IS NULL) = (receipted_at IS NULL)", name="receipt"),
)
Index("outbox_open_idx", outbox.c.next_publish_at, postgresql_where=text("receipted_at IS NULL"))

changes = Table(
    "changes",
    metadata,
    Column("seq", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("practice_id", Uuid, nullable=True),
    Column("session_id", Uuid, nullable=True),
    _time("at"),
)

abandoned_signups = Table(
    "abandoned_signups",
    metadata,
    Column("practice_id", Uuid, primary_key=True),
    _time("abandoned_at"),
    _time("released_at", nullable=True),
)
Index(
    "abandoned_signups_open_idx",
    abandoned_signups.c.abandoned_at,
    postgresql_where=text("released_at IS NULL"),
)


def interval(seconds: float | ColumnElement[float]) -> ColumnElement[timedelta]:
    """A span of time in an SQL expression."""
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)
