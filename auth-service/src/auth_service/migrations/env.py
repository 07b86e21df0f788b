"""What Alembic runs. The connection comes from whoever asked for the migration."""

from alembic import context

from auth_service.schema import SCHEMA, metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    include_schemas=True,
    include_name=lambda name, kind, _: kind != "schema" or name == SCHEMA,
    version_table_schema=SCHEMA,
)
with context.begin_transaction():
    context.run_migrations()
