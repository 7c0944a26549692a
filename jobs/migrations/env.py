"""Alembic's entry: runs the migrations on the connection, and in the transaction, that `jobs.schema.upgrade` hands over."""

from alembic import context

from jobs.schema.job_tables import metadata
from jobs.schema.upgrade import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
    transaction_per_migration=False,
)
context.run_migrations()
