"""Patients, as the original program kept them, and what the application adds with defaults."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the table; shard roles may read and write rows, and nothing else."""
    op.create_table(
        "patients",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("mobile", sa.String(20), nullable=False),
        sa.Column("age", sa.Integer, nullable=False),
        sa.Column("is_deleted", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("version", sa.Integer, nullable=False, server_default="1"),
        sa.CheckConstraint("is_deleted IN (0, 1)", name="patients_is_deleted_check"),
    )
    # the list of active patients walks this index; ids are UUIDv7 and sort by time
    op.create_index("patients_active_idx", "patients", ["id"], postgresql_where=sa.text("is_deleted = 0"))
    op.execute("GRANT SELECT, INSERT, UPDATE ON patients TO shard_rw")
    op.execute("GRANT SELECT ON alembic_version TO shard_rw")
