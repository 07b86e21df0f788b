"""The tables of a shard as this service uses them. tenant-service makes them; a test compares the two."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Uuid,
    func,
    text,
)

ACCEPTED_REVISIONS = frozenset({b"0001", b"0002"})
"""How far a shard's migrations may be: the newest and the one before, so that calls go on while a fleet is migrated."""
MAX_NAME_CHARACTERS = 200
MAX_MOBILE_CHARACTERS = 20

metadata = MetaData()

patients = Table(
    "patients",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", String(MAX_NAME_CHARACTERS), nullable=False),
    Column("mobile", String(MAX_MOBILE_CHARACTERS), nullable=False),
    Column("age", Integer, nullable=False),
    Column("is_deleted", SmallInteger, nullable=False, server_default="0"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("version", Integer, nullable=False, server_default="1"),
    CheckConstraint("is_deleted IN (0, 1)", name="patients_is_deleted_check"),
)
Index("patients_active_idx", patients.c.id, postgresql_where=text("is_deleted = 0"))
