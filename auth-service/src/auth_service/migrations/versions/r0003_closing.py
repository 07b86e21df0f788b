"""Closing a practice: until when it can be undone, and the record of a deletion."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_SCHEMA = "auth"


def upgrade() -> None:
    op.add_column("practices", sa.Column("closes_at", sa.DateTime(timezone=True), nullable=True), schema=_SCHEMA)
    op.add_column(
        "practices", sa.Column("status_before", sa.Text, nullable=True, comment="of the closing"), schema=_SCHEMA
    )
    op.create_index(
        "practices_closing_idx",
        "practices",
        ["closes_at"],
        schema=_SCHEMA,
        postgresql_where=sa.text("status = 'closing'"),
    )
    op.create_table(
        "deletion_records",
        sa.Column("practice_id", sa.Uuid, primary_key=True),
        sa.Column("record", sa.Text, nullable=False, comment="signed; holds nothing personal"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        schema=_SCHEMA,
    )
