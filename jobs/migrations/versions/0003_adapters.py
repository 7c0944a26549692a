"""Marks of incremental listings, validators of conditional requests, sealed tokens."""

import sqlalchemy as sa
from alembic import op

from jobs.db.clock import UTCDateTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("listing", sa.Column("next_mark", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("listing", sa.Column("is_filtered", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("listing", sa.Column("flawed", sa.Integer(), server_default="0", nullable=False))
    op.add_column("record", sa.Column("job_generation", sa.Integer(), server_default="0", nullable=False))
    failed = sa.text("state = 'failure'")
    op.create_index("job_failed", "job", ["type", "key", "id"], sqlite_where=failed, postgresql_where=failed)
    op.create_table(
        "validator",
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("last_modified", sa.Text(), nullable=True),
        sa.Column("sync", sa.Text(), nullable=True),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("stored_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("client", "identity", "method", "url"),
    )
    op.create_index("validator_entity", "validator", ["sync", "key"])
    op.create_table(
        "token",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("updated_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
