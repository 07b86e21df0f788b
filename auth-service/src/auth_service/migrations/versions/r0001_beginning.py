"""Practices, people and their memberships, sessions, the outbox, changes, abandoned sign-ups.

The schema itself is made by tenant-service's `prepare`, which also lets this role own it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

_SCHEMA = "auth"


def upgrade() -> None:
    _create_people_and_practices()
    _create_sessions()
    _create_outbox()
    op.create_table(
        "changes",
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("practice_id", sa.Uuid),
        sa.Column("session_id", sa.Uuid),
        _time("at"),
        schema=_SCHEMA,
    )
    op.create_table(
        "abandoned_signups",
        sa.Column("practice_id", sa.Uuid, primary_key=True),
        _time("abandoned_at"),
        _time("released_at", nullable=True),
        schema=_SCHEMA,
    )
    op.create_index(
        "abandoned_signups_open_idx",
        "abandoned_signups",
        ["abandoned_at"],
        schema=_SCHEMA,
        postgresql_where=sa.text("released_at IS NULL"),
    )


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    default = None if nullable else sa.func.now()
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=default)


def _create_people_and_practices() -> None:
    op.create_table(
        "people",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("email", sa.Text, nullable=False, comment="as written"),
        sa.Column("email_key", sa.Text, nullable=False, comment="normalised and in lower case"),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("password", sa.Text, nullable=False, comment="the only hash that log-in reads"),
        _time("created_at"),
        _time("updated_at"),
        sa.UniqueConstraint("email_key", name="people_email_key_key"),
        schema=_SCHEMA,
    )
    op.create_table(
        "practices",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("email", sa.String(255), nullable=False),
        sa.Column("password", sa.Text, nullable=False, comment="the owner's; written with it, never read"),
        sa.Column("database_name", sa.String(255)),
        sa.Column("status", sa.Text, nullable=False),
        _time("created_at"),
        _time("updated_at"),
        sa.UniqueConstraint("database_name", name="practices_database_name_key"),
        sa.CheckConstraint(
            "status IN ('provisioning', 'active', 'suspended', 'closing', 'closed')",
            name=op.f("practices_status_check"),
        ),
        sa.CheckConstraint(
            "status = 'provisioning' OR database_name IS NOT NULL", name=op.f("practices_has_database_check")
        ),
        schema=_SCHEMA,
    )
    op.create_index("practices_email_key", "practices", [sa.text("lower(email)")], unique=True, schema=_SCHEMA)
    op.create_index(
        "practices_provisioning_idx",
        "practices",
        ["created_at"],
        schema=_SCHEMA,
        postgresql_where=sa.text("status = 'provisioning'"),
    )
    op.create_table(
        "memberships",
        sa.Column("person_id", sa.Uuid, sa.ForeignKey("auth.people.id"), primary_key=True),
        sa.Column("practice_id", sa.Uuid, sa.ForeignKey("auth.practices.id"), primary_key=True),
        sa.Column("role", sa.Text, nullable=False),
        _time("created_at"),
        _time("last_used_at", nullable=True),
        schema=_SCHEMA,
    )
    op.create_index("memberships_practice_id_idx", "memberships", ["practice_id"], schema=_SCHEMA)


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("person_id", sa.Uuid, sa.ForeignKey("auth.people.id"), nullable=False),
        sa.Column("practice_id", sa.Uuid, sa.ForeignKey("auth.practices.id"), nullable=False),
        sa.Column(
            "generation",
            sa.Integer,
            nullable=False,
            server_default="0",
            comment="of the refresh token that is valid",
        ),
        _time("created_at"),
        _time("rotated_at", nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        _time("revoked_at", nullable=True),
        sa.Column("user_agent", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        _time("last_used_at"),
        schema=_SCHEMA,
    )
    for column in ("person_id", "practice_id", "expires_at"):
        op.create_index(f"sessions_{column}_idx", "sessions", [column], schema=_SCHEMA)


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("event", sa.Uuid, primary_key=True),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("practice_id", sa.Uuid, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("payload", JSONB, nullable=False),
        _time("created_at"),
        _time("next_publish_at"),
        sa.Column("publish_count", sa.Integer, nullable=False, server_default="0"),
        _time("published_at", nullable=True),
        _time("receipted_at", nullable=True),
        sa.Column("outcome", sa.Text),
        sa.Column("detail", sa.Text),
        sa.CheckConstraint("outcome IN ('delivered', 'dead')", name=op.f("outbox_outcome_check")),
        sa.CheckConstraint("(outcome IS NULL) = (receipted_at IS NULL)", name=op.f("outbox_receipt_check")),
        schema=_SCHEMA,
    )
    op.create_index(
        "outbox_open_idx",
        "outbox",
        ["next_publish_at"],
        schema=_SCHEMA,
        postgresql_where=sa.text("receipted_at IS NULL"),
    )
