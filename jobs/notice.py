"""What people are told of, stored: news, the notices they go into, and the letters that say so. Knows no text and no channel.

News are the pauses that no notice knows of yet (`client.told` is the last one that is known), and the rows that a finish leaves
for each job that has failed for good. Folding takes them in: in one transaction for each client the news go, the notice says what
they come to, and the letters about it stand in the outbox. So nothing is told twice, however many processes look, and nothing is
lost when one of them dies.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, case, delete, exists, func, insert, literal_column, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.clock import UTCDateTime
from jobs.contention import again
from jobs.database import Database
from jobs.models import client, delivery, job, letter, listing, news, notice, pause
from jobs.rows import Rows

GATHER = 5.0
"""Seconds that failures wait for company before they are told. Those of a sync that is being run wait for its end."""

BATCH = 10_000
"""Failures that are read at once."""

MOST_WAITING = 10_000
"""Jobs are counted so far."""

PROCESSING, API = "processing", "api"


NO_JOB = 0
"""Stands in news that are about a listing."""


class News(NamedTuple):
    """A job that has failed for good, or a listing, of which nobody was told."""

    id: int
    type: str
    #: `NO_JOB` for a listing.
    job_id: int
    #: Of a listing: why it ended, see `RunResult.stopped`.
    key: str | None
    message: str
    at: datetime


class PauseNews(NamedTuple):
    """A pause, as far as a notice is concerned."""

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
    """One piece of trouble; see the table."""

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


class Addressee(NamedTuple):
    """A recipient as rows know one."""

    fingerprint: str
    masked: str


class Letter(NamedTuple):
    """A text to be sent, and to whom."""

    notice: Notice
    #: opened, more, digest or recovered.
    what: str
    event: str
    level: str
    subject: str
    body: str
    data: dict[str, Any]
    to: Sequence[Addressee]


@dataclass(frozen=True, slots=True)
class Trouble:
    """All that there is to say about a client at a moment."""

    client: str
    now: datetime
    #: The last one that was taken in, as it is now.
    known_pause: PauseNews | None
    #: Those that no notice knows of yet, in order.
    pauses: Sequence[PauseNews]
    #: The newest of all, known or not.
    last_pause: PauseNews | None
    #: By subject: what is open, and what was closed last.
    open: Mapping[str, Notice]
    closed: Mapping[str, Notice]


Decide = Callable[[Trouble], tuple[Sequence[Notice], Sequence[Letter]]]
"""From the trouble to the notices as they are to be stored, and what to send. Pure: it may be asked twice."""

_COLUMNS = tuple(column.name for column in notice.c if column.name != "client")
_PAUSE = tuple(pause.c[name] for name in PauseNews._fields)


class _Overtaken(Exception):
    """Another process has taken the same news."""


class Notices:
    """Notices of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        of_client: Any = bindparam("b_client")
        insert_into = postgresql.insert if db.dialect == "postgresql" else sqlite.insert
        self._meet = insert_into(client).values(id=of_client).on_conflict_do_nothing(index_elements=["id"])
        self._lock = select(client.c.told, db.now.label("now")).where(client.c.id == of_client).with_for_update()
        self._known = update(client).where(client.c.id == of_client).values(told=bindparam("b_told"))
        self._new_pauses = (
            select(*_PAUSE).where(pause.c.client == of_client, pause.c.id > bindparam("b_told")).order_by(pause.c.id)
        )
        self._known_pause = select(*_PAUSE).where(pause.c.client == of_client, pause.c.id == bindparam("b_told"))
        self._last_pause = select(*_PAUSE).where(pause.c.client == of_client).order_by(pause.c.id.desc()).limit(1)
        self._open = select(notice).where(notice.c.client == of_client, notice.c.closed_at.is_(None))
        newest = notice.alias("newest")
        is_newest = ~exists().where(
            newest.c.client == notice.c.client, newest.c.subject == notice.c.subject, newest.c.closed_at > notice.c.closed_at
        )
        self._closed = (
            select(notice).where(notice.c.client == of_client, notice.c.closed_at.is_not(None), is_newest).order_by(notice.c.id)
        )
        self._create = insert(notice).returning(notice.c.id)
        self._write = insert(letter).values(created_at=db.now).returning(letter.c.id)
        self._address = insert(delivery).values(created_at=db.now, next_at=db.now, state="waiting")
        self._note = insert(news).values(job_id=NO_JOB, at=db.now)
        self._ids = ids = Rows(db, {"id": "id"})
        self._take = delete(news).where(news.c.id.in_(select(ids.id).select_from(ids.table)))
        is_run = exists().where(listing.c.sync == news.c.type, listing.c.lease_until > db.now)
        gathered = (
            select(news.c.client, news.c.type, func.min(news.c.at).label("first"), func.max(news.c.id).label("last"))
            .group_by(news.c.client, news.c.type)
            .subquery()
        )
        is_held = exists().where(listing.c.sync == gathered.c.type, listing.c.lease_until > db.now)
        self._gathered = select(
            gathered.c.client, gathered.c.type, (gathered.c.first <= db.from_now("ago")).label("ripe"), is_held.label("held")
        )
        self._news = (
            select(news.c.id, news.c.type, news.c.job_id, news.c.key, news.c.message, news.c.at)
            .where(
                news.c.client == of_client, news.c.id > bindparam("b_after"), or_(news.c.type == bindparam("b_ended"), ~is_run)
            )
            .order_by(news.c.id)
            .limit(BATCH)
        )
        is_open = exists().where(
            notice.c.client == of_client, notice.c.subject == bindparam("b_subject"), notice.c.closed_at.is_(None)
        )
        is_untold = exists().where(news.c.client == of_client, news.c.type == bindparam("b_subject"))
        # A literal in the place of a Boolean, which SQLite has not.
        self._concerns = select(case((or_(is_open, is_untold), literal_column("1")), else_=literal_column("0")))
        unknown_pause = exists().where(pause.c.client == client.c.id, pause.c.id > client.c.told)
        self._paused = select(client.c.id).where(unknown_pause)
        is_paused = exists().where(pause.c.client == notice.c.client, pause.c.ended_at.is_(None))
        self._over = select(notice.c.client).where(
            notice.c.closed_at.is_(None), notice.c.subject == literal_column("''"), ~is_paused
        )
        untold = notice.c.count > notice.c.told_count
        is_old = notice.c.window_at <= db.from_now("ago")
        # A job type is well again when nothing of it has failed for a window; a sync, when a run of it goes well.
        is_calm = and_(notice.c.closed_at.is_(None), notice.c.updated_at <= db.from_now("ago"))
        self._late = select(notice.c.client).where(is_old, or_(and_(untold, notice.c.told_at.is_not(None)), is_calm))
        self._waiting = select(func.count()).select_from(
            select(job.c.id)
            .where(job.c.state == literal_column("'queued'"), job.c.client == of_client)
            .limit(MOST_WAITING)
            .subquery()
        )
        self._payload = select(job.c.id, job.c.payload).join_from(ids.table, job, job.c.id == ids.id)

    def stirred(self, clients: Collection[str], *, window: float, gather: float = GATHER) -> list[str]:
        """Return those of the clients about which there is something to say, or may be.

        Args:
            clients: whom this process knows.
            window: seconds after which what was counted is told.
            gather: seconds that failures wait for company.
        """
        with self._db.read() as connection:
            found = {row.id for row in connection.execute(self._paused)}
            found |= set(connection.execute(self._over).scalars())
            found |= set(connection.execute(self._late, {"ago": -window}).scalars())
            gathered = connection.execute(self._gathered, {"ago": -gather}).all()
        found |= {row.client for row in gathered if row.ripe and not row.held}
        return sorted(found & set(clients))

    def concerns(self, client_id: str, subject: str) -> bool:
        """Tell whether a notice of this sync or job type is open, or anything of it is still to be told."""
        with self._db.read() as connection:
            return bool(connection.execute(self._concerns, {"b_client": client_id, "b_subject": subject}).scalar_one())

    def news(self, client_id: str, *, ended: str = "", after: int = 0) -> list[News]:
        """Return the failures of a client that can be told now, the oldest first, at most `BATCH` of them.

        Args:
            client_id: whose.
            ended: the sync whose run is about to end: its failures wait no longer.
            after: the id to go on behind.
        """
        wanted = {"b_client": client_id, "b_ended": ended, "b_after": after}
        with self._db.read() as connection:
            return [News(*row) for row in connection.execute(self._news, wanted)]

    @again
    def note(self, client_id: str, sync_id: str, stopped: str, message: str) -> None:
        """Store that a listing has failed, for the case that the run which found out dies before it can say what it came to.

        Args:
            client_id, sync_id: whose.
            stopped: why it ended, see `RunResult.stopped`.
            message: one line, without secrets.
        """
        with self._db.write() as connection:
            connection.execute(self._note, {"client": client_id, "type": sync_id, "key": stopped, "message": message})

    def payloads(self, jobs: Iterable[int]) -> dict[int, Any]:
        """Return the payloads of jobs, as far as they are still there."""
        with self._db.read() as connection:
            rows = connection.execute(self._payload, self._ids.bind([(one,) for one in jobs])).all()
        return {row.id: row.payload for row in rows}

    def waiting(self, client_id: str) -> int:
        """Count the jobs of a client that are queued, up to `MOST_WAITING`."""
        with self._db.read() as connection:
            count: int = connection.execute(self._waiting, {"b_client": client_id}).scalar_one()
        return count

    def fold(self, client_id: str, taken: Sequence[int], decide: Decide) -> bool:
        """Take the news of a client in, and store what is to be said of them.

        Args:
            client_id: whose.
            taken: ids of the failures that `decide` speaks of.
            decide: says what becomes of the notices, and what is sent. Called inside the transaction.

        Returns:
            `False` where another process has taken some of these news: look again.
        """
        try:
            self._fold(client_id, taken, decide)
        except _Overtaken:
            return False
        return True

    @again
    def _fold(self, client_id: str, taken: Sequence[int], decide: Decide) -> None:
        who = {"b_client": client_id}
        with self._db.write() as connection:
            connection.execute(self._meet, who)
            # Two that fold one client's news come here one after the other.
            state = connection.execute(self._lock, who).one()
            now = UTCDateTime().process_result_value(state.now, None)
            assert now is not None
            if taken and connection.execute(self._take, self._ids.bind([(one,) for one in taken])).rowcount != len(taken):
                raise _Overtaken
            pauses = [PauseNews(*row) for row in connection.execute(self._new_pauses, {**who, "b_told": state.told})]
            trouble = Trouble(
                client_id, now, self._pause(connection, self._known_pause, {**who, "b_told": state.told}), pauses,
                self._pause(connection, self._last_pause, who),
                {row.subject: _notice(row) for row in connection.execute(self._open, who)},
                {row.subject: _notice(row) for row in connection.execute(self._closed, who)},
            )  # fmt: skip
            notices, letters = decide(trouble)
            for one in notices:
                self._store(connection, client_id, one)
            for text in letters:
                self._post(connection, client_id, text)
            if pauses:
                connection.execute(self._known, {**who, "b_told": pauses[-1].id})

    @staticmethod
    def _pause(connection: Connection, statement: Any, values: dict[str, Any]) -> PauseNews | None:
        row = connection.execute(statement, values).one_or_none()
        return None if row is None else PauseNews(*row)

    def _store(self, connection: Connection, client_id: str, one: Notice) -> None:
        values = {name: getattr(one, name) for name in _COLUMNS if name != "id"}
        if one.id is None:
            one.id = connection.execute(self._create, {**values, "client": client_id}).scalar_one()
        else:
            connection.execute(update(notice).where(notice.c.id == one.id).values(values))

    def _post(self, connection: Connection, client_id: str, text: Letter) -> None:
        values = {"client": client_id, "notice": text.notice.id}
        values |= {name: getattr(text, name) for name in ("what", "event", "level", "subject", "body", "data")}
        number = connection.execute(self._write, values).scalar_one()
        addressees = dict.fromkeys(text.to)
        if addressees:
            rows = [
                {"letter": number, "notice": text.notice.id, "recipient": one.fingerprint, "masked": one.masked}
                for one in addressees
            ]
            connection.execute(self._address, rows)


def _notice(row: Any) -> Notice:
    return Notice(**{name: row._mapping[name] for name in _COLUMNS})
