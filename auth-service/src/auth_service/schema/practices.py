"""Practices, the people who work in them, and sign-ups that were undone."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, String, Table, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import ARRAY

from auth_service.schema.base import metadata, time_column

people = Table(
    "people",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("email", Text, nullable=False, comment="as written"),
    Column("email_key", Text, nullable=False, unique=True, comment="normalised and in lower case"),
    Column("name", Text, nullable=False),
    Column("password", Text, nullable=False, comment="the only hash that log-in reads"),
    time_column("created_at"),
    time_column("updated_at"),
    time_column("email_verified_at", nullable=True),
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
    time_column("created_at"),
    time_column("updated_at"),
    Column("second_factor_roles", ARRAY(Text), nullable=False, server_default="{}", comment="must log in with two"),
    time_column("closes_at", nullable=True),
    Column("status_before", Text, nullable=True, comment="of the closing"),
    CheckConstraint("status IN ('provisioning', 'active', 'suspended', 'closing', 'closed')", name="status"),
    CheckConstraint("status = 'provisioning' OR database_name IS NOT NULL", name="has_database"),
)
Index("practices_email_key", func.lower(practices.c.email), unique=True)
Index("practices_provisioning_idx", practices.c.created_at, postgresql_where=text("status = 'provisioning'"))

Index("practices_closing_idx", practices.c.closes_at, postgresql_where=text("status = 'closing'"))

memberships = Table(
    "memberships",
    metadata,
    Column("person_id", ForeignKey(people.c.id), primary_key=True),
    Column("practice_id", ForeignKey(practices.c.id), primary_key=True),
    Column("role", Text, nullable=False),
    time_column("created_at"),
    time_column("last_used_at", nullable=True),
)
Index("memberships_practice_id_idx", memberships.c.practice_id)

abandoned_signups = Table(
    "abandoned_signups",
    metadata,
    Column("practice_id", Uuid, primary_key=True),
    time_column("abandoned_at"),
    time_column("released_at", nullable=True),
)
Index(
    "abandoned_signups_open_idx",
    abandoned_signups.c.abandoned_at,
    postgresql_where=text("released_at IS NULL"),
)

deletion_records = Table(
    "deletion_records",
    metadata,
    Column("practice_id", Uuid, primary_key=True),
    Column("record", Text, nullable=False, comment="signed; holds nothing personal"),
    time_column("created_at"),
)
