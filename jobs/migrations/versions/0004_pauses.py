"""Probes of pauses; notices."""

import sqlalchemy as sa
from alembic import op

from jobs.db import clock
from jobs.db.clock import UTCDateTime

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    _pauses()
    _notices()


def _pauses() -> None:
    op.add_column("pause", sa.Column("probes", sa.Integer(), server_default="0", nullable=False))
    op.add_column("pause", sa.Column("probe_by", sa.Text(), nullable=True))
    op.add_column("pause", sa.Column("probe_until", UTCDateTime(), nullable=True))
    # A pause that the clock had ended stayed open, and meant nothing; from now on it would mean that a probe is due.
    pause = sa.table("pause", sa.column("until", UTCDateTime()), sa.column("ended_at", UTCDateTime()), sa.column("ended_by"))
    now = clock.now(op.get_bind().dialect.name, clock.system_clock)
    over = sa.update(pause).where(pause.c.ended_at.is_(None), pause.c.until <= now)
    op.execute(over.values(ended_at=pause.c.until, ended_by="clock"))


def _notices() -> None:
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("client", sa.Column("told", big, server_default="0", nullable=False))
    # What happened before there were notices is no news.
    op.execute("UPDATE client SET told = coalesce((SELECT max(pause.id) FROM pause WHERE pause.client = client.id), 0)")
    op.create_index("pause_of", "pause", ["client", "id"])
    # Nothing was ever written to it.
    op.drop_index("notice_cause", "notice")
    op.drop_table("notice")
    op.create_table(
        "news",
        sa.Column("id", big, autoincrement=True, nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("job_id", big, nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "notice",
        sa.Column("id", big, autoincrement=True, nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), server_default="", nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("causes", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("told_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("letters", sa.Integer(), server_default="0", nullable=False),
        sa.Column("facts", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("is_muted", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("opened_at", UTCDateTime(), nullable=False),
        sa.Column("updated_at", UTCDateTime(), nullable=False),
        sa.Column("window_at", UTCDateTime(), nullable=False),
        sa.Column("told_at", UTCDateTime(), nullable=True),
        sa.Column("closed_at", UTCDateTime(), nullable=True),
        sa.Column("closed_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    is_open = sa.text("closed_at IS NULL")
    op.create_index("notice_open", "notice", ["client", "subject"], unique=True, sqlite_where=is_open, postgresql_where=is_open)
    op.create_index("notice_last", "notice", ["client", "subject", "closed_at"])
    op.create_table(
        "letter",
        sa.Column("id", big, autoincrement=True, nullable=False),
        sa.Column("notice", big, nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("letter_notice", "letter", ["notice"])
    op.create_table(
        "delivery",
        sa.Column("id", big, autoincrement=True, nullable=False),
        sa.Column("letter", big, nullable=False),
        sa.Column("notice", big, nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("masked", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("claim_no", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_at", UTCDateTime(), nullable=False),
        sa.Column("lease_until", UTCDateTime(), nullable=True),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("sent_at", UTCDateTime(), nullable=True),
        sa.Column("via", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    waiting = sa.text("state = 'waiting'")
    op.create_index("delivery_due", "delivery", ["next_at", "letter"], sqlite_where=waiting, postgresql_where=waiting)
    op.create_index("delivery_letter", "delivery", ["letter"])
