"""Lists notices and their messages for people."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from jobs.db.database import Database
from jobs.notices.outbox import WAITING
from jobs.schema.job_tables import delivery, notice, outbox_message


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message about a notice, and what became of its deliveries."""

    id: int
    notice: int
    client: str
    sync: str
    kind: str
    level: str
    what: str
    subject: str
    created_at: datetime
    #: `to` (masked), `state`, `attempts`, `sent_at`, `next_at`, `via`, `error`.
    deliveries: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class NoticeView:
    """A notice."""

    id: int
    client: str
    sync: str
    kind: str
    level: str
    causes: list[dict[str, Any]]
    count: int
    opened_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    closed_by: str | None


class NoticeViews:
    """Lists of one database. Only reads."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def messages(self, client: str | None = None, *, waiting: bool = False, limit: int = 50) -> list[MessageView]:
        """Return messages, the newest first.

        Args:
            client: only messages about this client.
            waiting: only messages that were not sent to all recipients yet.
            limit: the most messages to return.
        """
        wanted = select(outbox_message, notice.c.subject.label("sync"), notice.c.kind).join_from(
            outbox_message, notice, notice.c.id == outbox_message.c.notice
        )
        if client is not None:
            wanted = wanted.where(outbox_message.c.client == client)
        if waiting:
            wanted = wanted.where(outbox_message.c.id.in_(select(delivery.c.letter).where(delivery.c.state == WAITING)))
        with self._db.read() as connection:
            messages = connection.execute(wanted.order_by(outbox_message.c.id.desc()).limit(limit)).all()
            theirs = select(delivery).where(delivery.c.letter.in_([row.id for row in messages])).order_by(delivery.c.id)
            rows = connection.execute(theirs).all() if messages else []
        deliveries: dict[int, list[dict[str, Any]]] = {}
        for row in rows:
            names = ("state", "attempts", "sent_at", "next_at", "via", "error")
            deliveries.setdefault(row.letter, []).append({"to": row.masked, **{name: getattr(row, name) for name in names}})
        return [
            MessageView(
                id=row.id,
                notice=row.notice,
                client=row.client,
                sync=row.sync,
                kind=row.kind,
                level=row.level,
                what=row.what,
                subject=row.subject,
                created_at=row.created_at,
                deliveries=deliveries.get(row.id, []),
            )
            for row in messages
        ]

    def notices(self, client: str | None = None, *, open_only: bool = True, limit: int = 50) -> list[NoticeView]:
        """Return notices, the newest first.

        Args:
            client: only notices about this client.
            open_only: only notices that are not closed.
            limit: the most notices to return.
        """
        wanted = select(notice).order_by(notice.c.id.desc()).limit(limit)
        if client is not None:
            wanted = wanted.where(notice.c.client == client)
        if open_only:
            wanted = wanted.where(notice.c.closed_at.is_(None))
        with self._db.read() as connection:
            rows = connection.execute(wanted).all()
        return [
            NoticeView(
                id=row.id,
                client=row.client,
                sync=row.subject,
                kind=row.kind,
                level=row.level,
                causes=row.causes or [],
                count=row._mapping["count"],  # `row.count` is a method
                opened_at=row.opened_at,
                updated_at=row.updated_at,
                closed_at=row.closed_at,
                closed_by=row.closed_by,
            )
            for row in rows
        ]
