"""The tables of the schema `tenant` in the central database. A test compares them with the migrations."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "tenant"
metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    },
)

fleet = Table(
    "fleet",
    metadata,
    Column("id", Uuid, primary_key=True, comment="Stamped on every shard of this directory."),
    Column("singleton", Boolean, nullable=False, server_default="true", unique=True),
    CheckConstraint("singleton", name="singleton"),
)

servers = Table(
    "servers",
    metadata,
    Column("key", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("sslmode", Text, nullable=False),
    Column("sslrootcert", Text),
    Column("state", Text, nullable=False, server_default="open", comment="Whether it takes new practices."),
    Column("capacity", Integer, nullable=False, server_default="5000", comment="Practices."),
    Column("max_connections", Integer, nullable=False, server_default="100", comment="As the server last told."),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("state IN ('open', 'draining')", name="state"),
    CheckConstraint("capacity >= 0", name="capacity"),
)

shards = Table(
    "shards",
    metadata,
    Column("practice_id", Uuid, primary_key=True),
    Column("server", Text, ForeignKey("servers.key")),
    Column("database", Text, unique=True, comment="Also the name of its login role."),
    Column("state", Text, nullable=False),
    Column("revision", Text, comment="How far the shard's migrations are."),
    Column("fence", Text, comment="Why nobody may use it now; NULL when all may."),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("state IN ('creating', 'ready', 'quarantined', 'undone')", name="state"),
    CheckConstraint("state = 'undone' OR (server IS NOT NULL AND database IS NOT NULL)", name="place"),
    Index(None, "server", "created_at"),
    Index("shards_unfinished_idx", "state", postgresql_where="state <> 'ready'"),
)

warm_shards = Table(
    "warm_shards",
    metadata,
    Column("database", Text, primary_key=True, comment="Also the name of its login role."),
    Column("server", Text, ForeignKey("servers.key"), nullable=False),
    Column("state", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("state IN ('making', 'ready', 'dropping')", name="state"),
    Index(None, "server"),
    comment="Shards made ahead that belong to no practice yet.",
)

shard_migrations = Table(
    "shard_migrations",
    metadata,
    Column("database", Text, primary_key=True),
    Column("revision", Text, primary_key=True, comment="Where it was to get to."),
    Column("state", Text, nullable=False),
    Column("seconds", Float, nullable=False, comment="The last attempt's."),
    Column("error", Text),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("state IN ('done', 'failed', 'drifted')", name="state"),
    comment="The ledger: the last attempt to bring each shard to each revision.",
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("arguments", JSONB, nullable=False),
    Column("state", Text, nullable=False, server_default="waiting"),
    Column("done", Integer, nullable=False, server_default="0"),
    Column("total", Integer),
    Column("result", JSONB),
    Column("error", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("state IN ('waiting', 'running', 'done', 'failed')", name="state"),
    Index("jobs_unfinished_idx", "created_at", postgresql_where="state IN ('waiting', 'running')"),
    comment="Deeds that take longer than a request may.",
)

changes = Table(
    "changes",
    metadata,
    Column("seq", BigInteger, Identity(), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("practice_id", Uuid, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

moves = Table(
    "moves",
    metadata,
    Column("practice_id", Uuid, primary_key=True),
    Column("database", Text, nullable=False),
    Column("from_server", Text, nullable=False),
    Column("to_server", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("rows", BigInteger),
    Column("fence_ms", Integer),
    Column("error", Text),
    Column("begun_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("phase IN ('copying', 'fenced', 'switched', 'rolled-back')", name="phase"),
    comment="The last move of each practice.",
)

copies = Table(
    "copies",
    metadata,
    Column("server", Text, ForeignKey("servers.key")),
    Column("database", Text),
    Column("practice_id", Uuid, nullable=False),
    Column("origin", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("job_id", Uuid, comment="Which job makes it."),
    Column("swap_oid", BigInteger, comment="What it was when a swap of it began."),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("server", "database"),
    CheckConstraint("origin IN ('restored', 'moved', 'swapped')", name="origin"),
    CheckConstraint("state IN ('making', 'ready')", name="state"),
    Index(None, "practice_id"),
    Index(None, "expires_at"),
    comment="Databases with a practice's data beside its live one. No practice can reach them.",
)

backup_keys = Table(
    "backup_keys",
    metadata,
    Column("practice_id", Uuid, primary_key=True),
    Column("recipient", Text, nullable=False, comment="What encrypts."),
    Column("identity", Text, nullable=False, comment="What decrypts; itself encrypted with BACKUP_SECRET."),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    comment="Each practice's own. Without its row no backup of the practice can ever be read.",
)

backups = Table(
    "backups",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("practice_id", Uuid, nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("revision", Text, nullable=False),
    Column("is_scheduled", Boolean, nullable=False),
    Column("taken_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index(None, "practice_id", "taken_at"),
    Index(None, "sha256"),
    comment="Files that exist as far as is known.",
)

operations = Table(
    "operations",
    metadata,
    Column("id", Uuid, primary_key=True, comment="By time, as all ids."),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("action", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("practice_id", Uuid, comment="No reference: it outlives the practice."),
    Column("target", Text, comment="What else it is about: a server, a job, a file."),
    Column("address", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("detail", JSONB, nullable=False, server_default="{}"),
    CheckConstraint("outcome IN ('success', 'failure')", name="outcome"),
    comment="What the platform's admin did. Nobody changes or deletes an entry.",
)
