"""How people prove who they are: sessions, tokens sent by mail, second factors, invitations. And machines: API keys."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from auth_service.schema.base import metadata, time_column
from auth_service.schema.practices import people, practices

sessions = Table(
    "sessions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("person_id", ForeignKey(people.c.id), nullable=False),
    Column("practice_id", ForeignKey(practices.c.id), nullable=False),
    Column("generation", Integer, nullable=False, server_default="0", comment="of the refresh token that is valid"),
    time_column("created_at"),
    time_column("rotated_at", nullable=True),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    time_column("revoked_at", nullable=True),
    Column("user_agent", Text, nullable=False),
    Column("address", Text, nullable=False),
    time_column("last_used_at"),
    time_column("second_factor_at", nullable=True),
)
Index("sessions_person_id_idx", sessions.c.person_id)
Index("sessions_practice_id_idx", sessions.c.practice_id)
Index("sessions_expires_at_idx", sessions.c.expires_at)

known_devices = Table(
    "known_devices",
    metadata,
    Column("person_id", ForeignKey(people.c.id, ondelete="CASCADE"), primary_key=True),
    Column("device", LargeBinary, primary_key=True, comment="SHA-256 of what the client says it is"),
    time_column("first_seen_at"),
    time_column("last_seen_at"),
)

mail_tokens = Table(
    "mail_tokens",
    metadata,
    Column("digest", LargeBinary, primary_key=True, comment="SHA-256 of the token, which only the mail holds"),
    Column("purpose", Text, nullable=False),
    Column("person_id", ForeignKey(people.c.id, ondelete="CASCADE"), nullable=False),
    Column("email_key", Text, nullable=False, comment="where it was sent; worthless when the person has another one"),
    time_column("created_at"),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    time_column("used_at", nullable=True),
    CheckConstraint("purpose IN ('verify-email', 'reset-password')", name="purpose"),
)
Index("mail_tokens_person_id_idx", mail_tokens.c.person_id)
Index("mail_tokens_expires_at_idx", mail_tokens.c.expires_at)

invitations = Table(
    "invitations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("practice_id", ForeignKey(practices.c.id), nullable=False),
    Column("email", Text, nullable=False, comment="as written"),
    Column("email_key", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True, comment="SHA-256 of the newest mail's token"),
    Column("invited_by", Uuid, nullable=False),
    time_column("created_at"),
    time_column("sent_at"),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    time_column("accepted_at", nullable=True),
    time_column("revoked_at", nullable=True),
)
Index(
    "invitations_open_key",
    invitations.c.practice_id,
    invitations.c.email_key,
    unique=True,
    postgresql_where=text("accepted_at IS NULL AND revoked_at IS NULL"),
)

second_factors = Table(
    "second_factors",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("person_id", ForeignKey(people.c.id, ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("secret", Text, nullable=False, comment="encrypted with a key derived from JWT_SECRET"),
    Column(
        "last_step", BigInteger, nullable=True, comment="time step of the newest code taken: no code is taken twice"
    ),
    time_column("created_at"),
    time_column("confirmed_at", nullable=True),
    time_column("last_used_at", nullable=True),
    CheckConstraint("kind IN ('totp')", name="kind"),
)
Index("second_factors_person_id_key", second_factors.c.person_id, second_factors.c.kind, unique=True)

recovery_codes = Table(
    "recovery_codes",
    metadata,
    Column("person_id", ForeignKey(people.c.id, ondelete="CASCADE"), primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    time_column("created_at"),
    time_column("used_at", nullable=True),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("practice_id", ForeignKey(practices.c.id), nullable=False),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False, comment="the key's beginning, to tell it from others"),
    Column("digest", LargeBinary, nullable=False, unique=True, comment="SHA-256 of the key, which is shown once"),
    Column("permissions", ARRAY(Text), nullable=False),
    Column("created_by", Uuid, nullable=False),
    time_column("created_at"),
    Column("expires_at", DateTime(timezone=True), nullable=True),
    time_column("last_used_at", nullable=True),
    time_column("revoked_at", nullable=True),
)
Index("api_keys_practice_id_idx", api_keys.c.practice_id)
