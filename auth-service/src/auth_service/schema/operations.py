"""What others have to be told: events for the notifier, changes for the gateways. And what happened: the audit."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Index, Integer, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from auth_service.schema.base import metadata, time_column

outbox = Table(
    "outbox",
    metadata,
    Column("event", Uuid, primary_key=True),
    Column("type", Text, nullable=False),
    Column("practice_id", Uuid, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("payload", JSONB, nullable=False),
    time_column("created_at"),
    time_column("next_publish_at"),
    Column("publish_count", Integer, nullable=False, server_default="0"),
    time_column("published_at", nullable=True),
    time_column("receipted_at", nullable=True),
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
    time_column("at"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Uuid, primary_key=True, comment="by time, as all ids"),
    time_column("at"),
    Column(
        "practice_id", Uuid, nullable=True, comment="whose owner may read it; no reference, it outlives the practice"
    ),
    Column("actor", Text, nullable=False, comment="person, api-key, admin, service or anonymous"),
    Column("actor_id", Text, nullable=True),
    Column("action", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("person_id", Uuid, nullable=True, comment="whom it is about"),
    Column("target", Text, nullable=True, comment="what else it is about: a session, an invitation, a key"),
    Column("session_id", Uuid, nullable=True),
    Column("address", Text, nullable=False),
    Column("user_agent", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("detail", JSONB, nullable=False, server_default="{}"),
    CheckConstraint("outcome IN ('success', 'failure')", name="outcome"),
)
"""Nobody changes or deletes an entry: a trigger refuses it."""
Index("audit_practice_id_idx", audit.c.practice_id, audit.c.id)
