"""Runs of syncs."""

import sqlalchemy as sa
from alembic import op

from jobs.db.clock import UTCDateTime

revision = "0008"
down_revision = "0007"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
COUNTS = ("pages", "listed", "queued", "succeeded", "unchanged", "gone", "failed", "deleted")


def upgrade() -> None:
    op.create_table(
        "run",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("sync", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("stopped", sa.Text(), nullable=True),
        sa.Column("started_by", sa.Text(), nullable=False),
        sa.Column("flow_run", sa.Text(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("alive_until", UTCDateTime(), nullable=False),
        sa.Column("claim_no", sa.Integer(), nullable=True),
        sa.Column("started_at", UTCDateTime(), nullable=False),
        sa.Column("ended_at", UTCDateTime(), nullable=True),
        *(sa.Column(name, sa.Integer(), server_default="0", nullable=False) for name in COUNTS),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("run_of", "run", ["sync", "id"])
    for name, columns, where in (
        ("run_whole", ["sync", "id"], "state = 'success' AND stopped = 'end'"),
        ("run_open", ["sync"], "state = 'running'"),
    ):
        op.create_index(name, "run", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
