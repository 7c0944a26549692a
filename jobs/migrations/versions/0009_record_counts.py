"""Indexes in which the records of a sync, and its entities that fail, are counted."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    for name, columns, where in (
        ("record_live", ["sync"], "deleted_at IS NULL"),
        ("record_failing", ["sync", "key"], "last_error IS NOT NULL AND deleted_at IS NULL"),
    ):
        op.create_index(name, "record", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
