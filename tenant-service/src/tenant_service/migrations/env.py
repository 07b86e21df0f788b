"""Runs a history on the connection that `migrating.upgrade` hands over, inside that connection's transaction."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table_schema=context.config.attributes["version_table_schema"],
)
context.run_migrations()
