"""Declares the tables of unreported failures, notices, outbox messages and deliveries."""

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Column, Index, false
from sqlmodel import Field

from jobs.schema.column_types import ID_TYPE, Row, integer_column, json_column, partial_index, text_column, time_column


class UnreportedFailureRow(Row, table=True):
    """A job or a listing that has failed and that no notice includes yet; removed in the transaction of the notice."""

    __tablename__ = "news"

    id: int | None = Field(default=None, sa_column=Column(ID_TYPE, primary_key=True, autoincrement=True))
    client: str = text_column(nullable=False)
    type: str = text_column(nullable=False)
    job_id: int = Field(sa_column=Column(ID_TYPE, nullable=False))
    key: str | None = text_column()
    message: str = text_column(nullable=False, default="")
    at: datetime | None = time_column(nullable=False)


class NoticeRow(Row, table=True):
    """One piece of trouble that people are notified of, from beginning to end. It holds keys, but no secrets or payloads."""

    __tablename__ = "notice"
    __table_args__ = (
        partial_index(
            "notice_open",
            "client",
            "subject",
            unique=True,
            where="closed_at IS NULL",
        ),
        Index("notice_last", "client", "subject", "closed_at"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, sa_column=Column(ID_TYPE, primary_key=True, autoincrement=True))
    client: str = text_column(nullable=False)
    #: The sync or job type; empty for the client as a whole.
    subject: str = text_column(nullable=False, default="")
    #: api or processing.
    kind: str = text_column(nullable=False)
    #: notice, warning or error: the highest so far.
    level: str = text_column(nullable=False)
    #: What happened so far: `[{"cause", "text", "count", "keys", "told"}]`.
    causes: Any = json_column()
    #: Pauses, failed runs or failed jobs so far, and how many of them messages have reported.
    count: int = integer_column()
    told_count: int = integer_column()
    #: Messages since `window_at`, the beginning of the present window.
    letters: int = integer_column()
    #: Further facts that its messages state.
    facts: Any = json_column()
    #: It came back too often: only digests report it.
    is_muted: bool = Field(default=False, sa_column=Column(Boolean(), nullable=False, server_default=false()))
    opened_at: datetime | None = time_column(nullable=False)
    updated_at: datetime | None = time_column(nullable=False)
    window_at: datetime | None = time_column(nullable=False)
    told_at: datetime | None = time_column()
    closed_at: datetime | None = time_column()
    closed_by: str | None = text_column()


class OutboxMessageRow(Row, table=True):
    """A message about a notice, stored before it is sent."""

    __tablename__ = "letter"
    __table_args__ = (Index("letter_notice", "notice"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, sa_column=Column(ID_TYPE, primary_key=True, autoincrement=True))
    notice: int = Field(sa_column=Column(ID_TYPE, nullable=False))
    client: str = text_column(nullable=False)
    #: opened, more (another cause, or a higher level), digest or recovered.
    what: str = text_column(nullable=False)
    event: str = text_column(nullable=False)
    level: str = text_column(nullable=False)
    subject: str = text_column(nullable=False)
    body: str = text_column(nullable=False)
    #: The same facts as JSON, for programs.
    data: Any = json_column()
    created_at: datetime | None = time_column(nullable=False)


class DeliveryRow(Row, table=True):
    """The delivery of a message to one recipient."""

    __tablename__ = "delivery"
    __table_args__ = (
        partial_index(
            "delivery_due",
            "next_at",
            "letter",
            where="state = 'waiting'",
        ),
        Index("delivery_letter", "letter"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, sa_column=Column(ID_TYPE, primary_key=True, autoincrement=True))
    letter: int = Field(sa_column=Column(ID_TYPE, nullable=False))
    notice: int = Field(sa_column=Column(ID_TYPE, nullable=False))
    #: Fingerprint of the recipient, which may contain a secret: the recipient is looked up in the declaration when it is sent.
    recipient: str = text_column(nullable=False)
    #: The recipient without its secret.
    masked: str = text_column(nullable=False)
    #: waiting, sent, or failed: given up.
    state: str = text_column(nullable=False, default="waiting")
    attempts: int = integer_column()
    #: The fence, as on a job.
    claim_no: int = integer_column()
    next_at: datetime | None = time_column(nullable=False)
    #: While it is being sent: after this time another process may send it.
    lease_until: datetime | None = time_column()
    created_at: datetime | None = time_column(nullable=False)
    sent_at: datetime | None = time_column()
    #: How it was sent: `direct`, or the name of a carrier.
    via: str | None = text_column()
    error: str | None = text_column()
