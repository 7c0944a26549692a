"""Stores the notices of a client, and the messages about them, in one transaction.

The transaction removes the unreported failures that the notices now include, and puts the messages into the outbox. So every
failure is reported once, however many processes report, and none is lost when a process dies.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, delete, exists, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.db.clock import UTCDateTime
from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.db.json_rows import JsonRows
from jobs.schema.job_tables import client, delivery, notice, outbox_message, pause, unreported_failure

PROCESSING, API = "processing", "api"
"""Kinds of notices: jobs fail, or the remote side does."""


class PauseSnapshot(NamedTuple):
    """What a notice says about a pause."""

    id: int
    cause: str
    reason: str
    set_by: str | None
    level: int
    started_at: datetime
    #: Its end by the clock; `None` waits for a person.
    until: datetime | None
    ended_at: datetime | None
    ended_by: str | None


@dataclass(slots=True)
class Notice:
    """One piece of trouble; the columns are explained at `jobs.schema.notice_tables.NoticeRow`."""

    subject: str
    kind: str
    level: str
    opened_at: datetime
    updated_at: datetime
    window_at: datetime
    causes: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0
    told_count: int = 0
    letters: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    is_muted: bool = False
    told_at: datetime | None = None
    closed_at: datetime | None = None
    closed_by: str | None = None
    #: `None` until it is stored.
    id: int | None = None


class RecipientRef(NamedTuple):
    """A recipient as it is stored: the declaration may hold a secret."""

    fingerprint: str
    masked: str


class NewMessage(NamedTuple):
    """A message about a notice, and its recipients."""

    notice: Notice
    #: opened, more, digest or recovered.
    what: str
    event: str
    level: str
    subject: str
    body: str
    data: dict[str, Any]
    to: Sequence[RecipientRef]


@dataclass(frozen=True, slots=True)
class ClientSnapshot:
    """The pauses and notices of a client at one time."""

    client: str
    now: datetime
    #: The last pause that a notice includes, as it is now.
    known_pause: PauseSnapshot | None
    #: The pauses after it, in order.
    pauses: Sequence[PauseSnapshot]
    #: The newest of all.
    last_pause: PauseSnapshot | None
    #: By subject: the open notices, and of the closed ones the newest.
    open: Mapping[str, Notice]
    closed: Mapping[str, Notice]


Decide = Callable[[ClientSnapshot], tuple[Sequence[Notice], Sequence[NewMessage]]]
"""Returns the notices to store and the messages to send. Pure, because it is called again after a conflict."""

_NOTICE_COLUMNS = tuple(column.name for column in notice.c if column.name != "client")
_PAUSE_COLUMNS = tuple(pause.c[name] for name in PauseSnapshot._fields)


class _AlreadyReported(Exception):
    """Another process has reported some of these failures."""


class Notices:
    """Notices of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        of_client: Any = bindparam("b_client")
        insert_into = postgresql.insert if db.dialect == "postgresql" else sqlite.insert
        self._insert_client = insert_into(client).values(id=of_client).on_conflict_do_nothing(index_elements=["id"])
        self._lock = select(client.c.told, db.now.label("now")).where(client.c.id == of_client).with_for_update()
        self._set_known = update(client).where(client.c.id == of_client).values(told=bindparam("b_told"))
        self._new_pauses = (
            select(*_PAUSE_COLUMNS).where(pause.c.client == of_client, pause.c.id > bindparam("b_told")).order_by(pause.c.id)
        )
        self._known_pause = select(*_PAUSE_COLUMNS).where(pause.c.client == of_client, pause.c.id == bindparam("b_told"))
        self._last_pause = select(*_PAUSE_COLUMNS).where(pause.c.client == of_client).order_by(pause.c.id.desc()).limit(1)
        self._open = select(notice).where(notice.c.client == of_client, notice.c.closed_at.is_(None))
        newer = notice.alias("newer")
        is_newest = ~exists().where(
            newer.c.client == notice.c.client, newer.c.subject == notice.c.subject, newer.c.closed_at > notice.c.closed_at
        )
        self._closed = (
            select(notice).where(notice.c.client == of_client, notice.c.closed_at.is_not(None), is_newest).order_by(notice.c.id)
        )
        self._insert_notice = insert(notice).returning(notice.c.id)
        self._insert_message = insert(outbox_message).values(created_at=db.now).returning(outbox_message.c.id)
        self._insert_deliveries = insert(delivery).values(created_at=db.now, next_at=db.now, state="waiting")
        self._ids = ids = JsonRows(db, {"id": "id"})
        self._remove = delete(unreported_failure).where(unreported_failure.c.id.in_(select(ids.id).select_from(ids.table)))

    def update(self, client_id: str, reported: Sequence[int], decide: Decide) -> bool:
        """Store what `decide` makes of a client's notices.

        Args:
            client_id: the client.
            reported: ids of the unreported failures that the decision includes; they are removed.
            decide: called inside the transaction.

        Returns:
            `False` if another process has reported some of these failures; then nothing was stored, and the caller reads again.
        """
        try:
            self._update(client_id, reported, decide)
        except _AlreadyReported:
            return False
        return True

    @retry_on_conflict
    def _update(self, client_id: str, reported: Sequence[int], decide: Decide) -> None:
        who = {"b_client": client_id}
        with self._db.write() as connection:
            connection.execute(self._insert_client, who)
            # Locks the client's row, so that two updates of its notices run one after the other.
            state = connection.execute(self._lock, who).one()
            now = UTCDateTime().process_result_value(state.now, None)
            assert now is not None
            if reported:
                removed = connection.execute(self._remove, self._ids.bind([(one,) for one in reported])).rowcount
                if removed != len(reported):
                    raise _AlreadyReported
            known = {**who, "b_told": state.told}
            pauses = [PauseSnapshot(*row) for row in connection.execute(self._new_pauses, known)]
            snapshot = ClientSnapshot(
                client=client_id,
                now=now,
                known_pause=_pause(connection, self._known_pause, known),
                pauses=pauses,
                last_pause=_pause(connection, self._last_pause, who),
                open={row.subject: _notice(row) for row in connection.execute(self._open, who)},
                closed={row.subject: _notice(row) for row in connection.execute(self._closed, who)},
            )
            notices, messages = decide(snapshot)
            for one in notices:
                self._store(connection, client_id, one)
            for message in messages:
                self._post(connection, client_id, message)
            if pauses:
                connection.execute(self._set_known, {**who, "b_told": pauses[-1].id})

    def _store(self, connection: Connection, client_id: str, one: Notice) -> None:
        values = {name: getattr(one, name) for name in _NOTICE_COLUMNS if name != "id"}
        if one.id is None:
            one.id = connection.execute(self._insert_notice, {**values, "client": client_id}).scalar_one()
        else:
            connection.execute(update(notice).where(notice.c.id == one.id).values(values))

    def _post(self, connection: Connection, client_id: str, message: NewMessage) -> None:
        values = {"client": client_id, "notice": message.notice.id}
        values |= {name: getattr(message, name) for name in ("what", "event", "level", "subject", "body", "data")}
        message_id = connection.execute(self._insert_message, values).scalar_one()
        recipients = dict.fromkeys(message.to)
        if recipients:
            rows = [
                {"letter": message_id, "notice": message.notice.id, "recipient": one.fingerprint, "masked": one.masked}
                for one in recipients
            ]
            connection.execute(self._insert_deliveries, rows)


def _pause(connection: Connection, statement: Any, values: dict[str, Any]) -> PauseSnapshot | None:
    row = connection.execute(statement, values).one_or_none()
    return None if row is None else PauseSnapshot(*row)


def _notice(row: Any) -> Notice:
    return Notice(**{name: row._mapping[name] for name in _NOTICE_COLUMNS})
