"""The directory of shards."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

SCHEMA = "tenant"


def upgrade() -> None:
    """Makes the tables, and this directory's fleet id."""
    op.create_table(
        "fleet",
        sa.Column("id", sa.Uuid, primary_key=True, comment="Stamped on every shard of this directory."),
        sa.Column("singleton", sa.Boolean, nullable=False, server_default="true"),
        sa.CheckConstraint("singleton", name="fleet_singleton_check"),
        sa.UniqueConstraint("singleton", name="fleet_singleton_key"),
        schema=SCHEMA,
    )
    op.execute("INSERT INTO tenant.fleet (id) VALUES (gen_random_uuid())")
    op.create_table(
        "servers",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("sslmode", sa.Text, nullable=False),
        sa.Column("sslrootcert", sa.Text),
        sa.Column("state", sa.Text, nullable=False, server_default="open"),
        sa.Column("capacity", sa.Integer, nullable=False, server_default="5000", comment="Practices."),
        sa.Column(
            "max_connections", sa.Integer, nullable=False, server_default="100", comment="As the server last told."
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint("state IN ('open', 'full', 'draining')", name="servers_state_check"),
        schema=SCHEMA,
    )
    _create_shards()
    op.create_table(
        "changes",
        sa.Column("seq", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("practice_id", sa.Uuid, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        schema=SCHEMA,
    )


def _create_shards() -> None:
    op.create_table(
        "shards",
        sa.Column("practice_id", sa.Uuid, primary_key=True),
        sa.Column("server", sa.Text, sa.ForeignKey(f"{SCHEMA}.servers.key", name="shards_server_fkey")),
        sa.Column("database", sa.Text, comment="Also the name of its login role."),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, comment="Head of the shard's migrations when it was made."),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.UniqueConstraint("database", name="shards_database_key"),
        sa.CheckConstraint("state IN ('creating', 'ready', 'quarantined', 'undone')", name="shards_state_check"),
        sa.CheckConstraint(
            "state = 'undone' OR (server IS NOT NULL AND database IS NOT NULL)", name="shards_place_check"
        ),
        schema=SCHEMA,
    )
    op.create_index("shards_server_idx", "shards", ["server"], schema=SCHEMA)
    op.create_index(
        "shards_unfinished_idx", "shards", ["state"], schema=SCHEMA, postgresql_where=sa.text("state <> 'ready'")
    )
