"""Limits and retention of queues, phases and serial keys of jobs, locks."""

from typing import Literal

import sqlalchemy as sa
from alembic import op

from jobs.db.clock import UTCDateTime

revision = "0002"
down_revision = "0001"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("queue", sa.Column("slots", sa.Integer(), nullable=True))
    op.add_column("queue", sa.Column("rate_n", sa.Integer(), nullable=True))
    op.add_column("queue", sa.Column("rate_seconds", sa.Float(), nullable=True))
    op.add_column("queue", sa.Column("keep_success_days", sa.Float(), server_default="7", nullable=True))
    op.add_column("queue", sa.Column("keep_failure_days", sa.Float(), server_default="30", nullable=True))
    op.add_column("queue", sa.Column("keep_max_items", sa.Integer(), nullable=True))
    # Nothing was ever written into the old column, and SQLite cannot make it NOT NULL.
    op.drop_column("job", "phase")
    op.add_column("job", sa.Column("phase", sa.Text(), server_default="", nullable=False))
    op.add_column("job", sa.Column("serial_key", sa.Text(), nullable=True))
    op.drop_index("job_ready", table_name="job")
    op.create_index(
        "job_ready",
        "job",
        ["queue", "client", "type", "phase", sa.text("priority DESC"), "available_at", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    # The fingerprint first: led by the queue, PostgreSQL without statistics took job_ready for as good and read a whole queue.
    op.drop_index("job_twin", table_name="job")
    op.create_index(
        "job_twin",
        "job",
        ["fingerprint", "queue"],
        unique=True,
        sqlite_where=sa.text("state = 'queued' AND fingerprint IS NOT NULL"),
        postgresql_where=sa.text("state = 'queued' AND fingerprint IS NOT NULL"),
    )
    op.create_index(
        "job_serial",
        "job",
        ["queue", "serial_key", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'queued' AND serial_key IS NOT NULL"),
        postgresql_where=sa.text("state = 'queued' AND serial_key IS NOT NULL"),
    )
    op.create_index(
        "job_alone",
        "job",
        ["queue", "serial_key"],
        unique=True,
        sqlite_where=sa.text("state = 'processing' AND serial_key IS NOT NULL"),
        postgresql_where=sa.text("state = 'processing' AND serial_key IS NOT NULL"),
    )
    # SQLite: made anew, without AUTOINCREMENT.
    recreate: Literal["always", "never"] = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    with op.batch_alter_table("attempt", recreate=recreate) as attempt:
        attempt.add_column(sa.Column("phase", sa.Text(), server_default="", nullable=False))
        attempt.add_column(sa.Column("exchanges", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "start",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.Column("count", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("start_queue", "start", ["queue", "at"], unique=False)
    op.create_table(
        "lock",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("token", sa.Integer(), server_default="0", nullable=False),
        sa.Column("acquired_at", UTCDateTime(), nullable=False),
        sa.Column("lease_until", UTCDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "maintenance",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("next_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
