"""Passes: since when a listing goes on, by which declaration, and how often its cursor failed."""

import sqlalchemy as sa
from alembic import op

from jobs.db.clock import UTCDateTime

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("listing", sa.Column("began_at", UTCDateTime(), nullable=True))
    op.add_column("listing", sa.Column("declaration", sa.Text(), nullable=True))
    op.add_column("listing", sa.Column("failures", sa.Integer(), server_default="0", nullable=False))
    op.add_column("listing", sa.Column("restarts", sa.Integer(), server_default="0", nullable=False))
    # A listing that is under way has begun before its last claim; its day begins with the upgrade.
    op.execute("UPDATE listing SET began_at = started_at")
