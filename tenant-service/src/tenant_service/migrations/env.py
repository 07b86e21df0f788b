"""Runs a history on the connection that `migrating.upgrade` hands over, inside that connection's transaction.

Without one, it writes the statements instead.
"""

from alembic import context

attributes = context.config.attributes
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", version_table_schema=attributes["version_table_schema"])
else:
    context.configure(connection=attributes["connection"], version_table_schema=attributes["version_table_schema"])
context.run_migrations()
