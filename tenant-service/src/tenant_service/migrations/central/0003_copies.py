"""A practice's data in more than one place: moves, copies beside the live shard, backups; and what the admin did."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"

SCHEMA = "tenant"


def upgrade() -> None:
    """Adds tables only."""
    _create_moves()
    _create_copies()
    _create_backups()
    _create_operations()


def _time(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    default = None if nullable else sa.func.now()
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=default)


def _create_moves() -> None:
    op.create_table(
        "moves",
        sa.Column("practice_id", sa.Uuid, primary_key=True),
        sa.Column("database", sa.Text, nullable=False),
        sa.Column("from_server", sa.Text, nullable=False),
        sa.Column("to_server", sa.Text, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger),
        sa.Column("fence_ms", sa.Integer),
        sa.Column("error", sa.Text),
        _time("begun_at"),
        _time("updated_at"),
        sa.CheckConstraint("phase IN ('copying', 'fenced', 'switched', 'rolled-back')", name="moves_phase_check"),
        schema=SCHEMA,
        comment="The last move of each practice.",
    )


def _create_copies() -> None:
    op.create_table(
        "copies",
        sa.Column("server", sa.Text, sa.ForeignKey(f"{SCHEMA}.servers.key", name="copies_server_fkey")),
        sa.Column("database", sa.Text),
        sa.Column("practice_id", sa.Uuid, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("job_id", sa.Uuid, comment="Which job makes it."),
        sa.Column("swap_oid", sa.BigInteger, comment="What it was when a swap of it began."),
        _time("created_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("server", "database", name="copies_pkey"),
        sa.CheckConstraint("origin IN ('restored', 'moved', 'swapped')", name="copies_origin_check"),
        sa.CheckConstraint("state IN ('making', 'ready')", name="copies_state_check"),
        schema=SCHEMA,
        comment="Databases with a practice's data beside its live one. No practice can reach them.",
    )
    op.create_index("copies_practice_id_idx", "copies", ["practice_id"], schema=SCHEMA)
    op.create_index("copies_expires_at_idx", "copies", ["expires_at"], schema=SCHEMA)


def _create_backups() -> None:
    op.create_table(
        "backup_keys",
        sa.Column("practice_id", sa.Uuid, primary_key=True),
        sa.Column("recipient", sa.Text, nullable=False, comment="What encrypts."),
        sa.Column("identity", sa.Text, nullable=False, comment="What decrypts; itself encrypted with BACKUP_SECRET."),
        _time("created_at"),
        schema=SCHEMA,
        comment="Each practice's own. Without its row no backup of the practice can ever be read.",
    )
    op.create_table(
        "backups",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("practice_id", sa.Uuid, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("is_scheduled", sa.Boolean, nullable=False),
        _time("taken_at"),
        schema=SCHEMA,
        comment="Files that exist as far as is known.",
    )
    op.create_index("backups_practice_id_taken_at_idx", "backups", ["practice_id", "taken_at"], schema=SCHEMA)
    op.create_index("backups_sha256_idx", "backups", ["sha256"], schema=SCHEMA)


def _create_operations() -> None:
    op.create_table(
        "operations",
        sa.Column("id", sa.Uuid, primary_key=True, comment="By time, as all ids."),
        _time("at"),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("practice_id", sa.Uuid, comment="No reference: it outlives the practice."),
        sa.Column("target", sa.Text, comment="What else it is about: a server, a job, a file."),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("detail", JSONB, nullable=False, server_default="{}"),
        sa.CheckConstraint("outcome IN ('success', 'failure')", name="operations_outcome_check"),
        schema=SCHEMA,
        comment="What the platform's admin did. Nobody changes or deletes an entry.",
    )
    op.execute(
        f"CREATE FUNCTION {SCHEMA}.refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the record of operations is append-only'; END $$"
    )
    for deed in ("UPDATE OR DELETE", "TRUNCATE"):
        level = "STATEMENT" if deed == "TRUNCATE" else "ROW"
        op.execute(
            f"CREATE TRIGGER operations_no_{deed.split()[0].lower()} BEFORE {deed} ON {SCHEMA}.operations"
            f" FOR EACH {level} EXECUTE FUNCTION {SCHEMA}.refuse_change()"
        )
