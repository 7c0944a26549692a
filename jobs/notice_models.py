"""The tables of what people are told: news, notices, letters, deliveries. Knows no query."""

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Column, Index, false, text
from sqlmodel import Field

from jobs.columns import BIG, Row, document, moment, number, words


class NewsRow(Row, table=True):
    """A job or a listing that has failed and of which nobody was told; written by what failed it, gone when it is told."""

    __tablename__ = "news"

    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    client: str = words(nullable=False)
    type: str = words(nullable=False)
    job_id: int = Field(sa_column=Column(BIG, nullable=False))
    key: str | None = words()
    message: str = words(nullable=False, default="")
    at: datetime | None = moment(nullable=False)


class NoticeRow(Row, table=True):
    """One piece of trouble that people are told of, from its beginning to its end. No secret and no payload: keys only."""

    __tablename__ = "notice"
    __table_args__ = (
        Index(
            "notice_open", "client", "subject", unique=True,
            sqlite_where=text("closed_at IS NULL"), postgresql_where=text("closed_at IS NULL"),
        ),
        Index("notice_last", "client", "subject", "closed_at"),
        {"sqlite_autoincrement": True},
    )  # fmt: skip

    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    client: str = words(nullable=False)
    #: The sync or job type; empty for the client as a whole.
    subject: str = words(nullable=False, default="")
    #: api or processing.
    kind: str = words(nullable=False)
    #: notice, warning or error: the highest so far.
    level: str = words(nullable=False)
    #: What happened so far: `[{"cause", "text", "count", "keys", "told"}]`.
    causes: Any = document()
    #: Pauses, failed runs or failed jobs so far, and how many of them people were told of.
    count: int = number()
    told_count: int = number()
    #: Letters since `window_at`, the beginning of the present window.
    letters: int = number()
    #: What else its letters say.
    facts: Any = document()
    #: It came back too often: only digests tell of it.
    is_muted: bool = Field(default=False, sa_column=Column(Boolean(), nullable=False, server_default=false()))
    opened_at: datetime | None = moment(nullable=False)
    updated_at: datetime | None = moment(nullable=False)
    window_at: datetime | None = moment(nullable=False)
    told_at: datetime | None = moment()
    closed_at: datetime | None = moment()
    closed_by: str | None = words()


class LetterRow(Row, table=True):
    """One text about a notice, stored before it is sent."""

    __tablename__ = "letter"
    __table_args__ = (Index("letter_notice", "notice"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    notice: int = Field(sa_column=Column(BIG, nullable=False))
    client: str = words(nullable=False)
    #: opened, more (another cause, or a higher level), digest or recovered.
    what: str = words(nullable=False)
    event: str = words(nullable=False)
    level: str = words(nullable=False)
    subject: str = words(nullable=False)
    body: str = words(nullable=False)
    #: What machines may want to know.
    data: Any = document()
    created_at: datetime | None = moment(nullable=False)


class DeliveryRow(Row, table=True):
    """A letter on its way to one recipient."""

    __tablename__ = "delivery"
    __table_args__ = (
        Index(
            "delivery_due", "next_at", "letter",
            sqlite_where=text("state = 'waiting'"), postgresql_where=text("state = 'waiting'"),
        ),
        Index("delivery_letter", "letter"),
        {"sqlite_autoincrement": True},
    )  # fmt: skip

    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    letter: int = Field(sa_column=Column(BIG, nullable=False))
    notice: int = Field(sa_column=Column(BIG, nullable=False))
    #: Fingerprint of the recipient, who may hold a secret: found again in the declaration when it is sent.
    recipient: str = words(nullable=False)
    #: What people may see of the recipient.
    masked: str = words(nullable=False)
    #: waiting, sent, or failed: given up.
    state: str = words(nullable=False, default="waiting")
    attempts: int = number()
    #: The fence, as on a job.
    claim_no: int = number()
    next_at: datetime | None = moment(nullable=False)
    #: While it is being sent: after this moment anyone may.
    lease_until: datetime | None = moment()
    created_at: datetime | None = moment(nullable=False)
    sent_at: datetime | None = moment()
    #: Who took it: `direct`, or the name of a carrier.
    via: str | None = words()
    error: str | None = words()
