"""Alembic's entry: runs the migrations on the connection, and in the transaction, that `jobs.schema` hands over."""

from alembic import context

from jobs.models import metadata
from jobs.schema import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
    transaction_per_migration=False,
)
context.run_migrations()
