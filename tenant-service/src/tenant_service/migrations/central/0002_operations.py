"""What operating a fleet needs: shards made ahead, fences, the ledger of shard migrations, jobs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"

SCHEMA = "tenant"


def upgrade() -> None:
    """A server is full by its numbers, no longer by a state."""
    op.execute("UPDATE tenant.servers SET state = 'open' WHERE state = 'full'")
    op.drop_constraint("servers_state_check", "servers", schema=SCHEMA)
    op.create_check_constraint("servers_state_check", "servers", "state IN ('open', 'draining')", schema=SCHEMA)
    op.create_check_constraint("servers_capacity_check", "servers", "capacity >= 0", schema=SCHEMA)
    op.alter_column("servers", "state", comment="Whether it takes new practices.", schema=SCHEMA)
    op.alter_column("shards", "revision", comment="How far the shard's migrations are.", schema=SCHEMA)
    op.add_column(
        "shards", sa.Column("fence", sa.Text, comment="Why nobody may use it now; NULL when all may."), schema=SCHEMA
    )
    # how many practices a server has, and how many of them signed up lately
    op.drop_index("shards_server_idx", "shards", schema=SCHEMA)
    op.create_index("shards_server_created_at_idx", "shards", ["server", "created_at"], schema=SCHEMA)
    _create_warm_shards()
    _create_ledger()
    _create_jobs()


def _create_warm_shards() -> None:
    op.create_table(
        "warm_shards",
        sa.Column("database", sa.Text, primary_key=True, comment="Also the name of its login role."),
        sa.Column(
            "server", sa.Text, sa.ForeignKey(f"{SCHEMA}.servers.key", name="warm_shards_server_fkey"), nullable=False
        ),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint("state IN ('making', 'ready', 'dropping')", name="warm_shards_state_check"),
        schema=SCHEMA,
        comment="Shards made ahead that belong to no practice yet.",
    )
    op.create_index("warm_shards_server_idx", "warm_shards", ["server"], schema=SCHEMA)


def _create_ledger() -> None:
    op.create_table(
        "shard_migrations",
        sa.Column("database", sa.Text, primary_key=True),
        sa.Column("revision", sa.Text, primary_key=True, comment="Where it was to get to."),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False, comment="The last attempt's."),
        sa.Column("error", sa.Text),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint("state IN ('done', 'failed', 'drifted')", name="shard_migrations_state_check"),
        schema=SCHEMA,
        comment="The ledger: the last attempt to bring each shard to each revision.",
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("arguments", JSONB, nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
        sa.Column("done", sa.Integer, nullable=False, server_default="0"),
        sa.Column("total", sa.Integer),
        sa.Column("result", JSONB),
        sa.Column("error", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint("state IN ('waiting', 'running', 'done', 'failed')", name="jobs_state_check"),
        schema=SCHEMA,
        comment="Deeds that take longer than a request may.",
    )
    op.create_index(
        "jobs_unfinished_idx",
        "jobs",
        ["created_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("state IN ('waiting', 'running')"),
    )
