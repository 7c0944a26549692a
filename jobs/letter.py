"""Letters on their way: taken to be sent, noted as sent, tried again, given up, shown. Knows no channel and no text.

A letter is taken with a lease and a fence, as a job is: two processes never send it at once, and one that was too slow notes
nothing. Only a process that dies between sending and noting leaves a letter that goes out a second time, when its lease is over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, bindparam, delete, exists, func, literal_column, or_, select, update

from jobs.contention import again
from jobs.database import Database
from jobs.models import delivery, letter, news, notice, pause
from jobs.rows import Rows

LEASE = 120.0
"""Seconds that others leave a letter to the process that took it."""

KEEP_DAYS = 90
"""Letters stay so long after they were written, and closed notices; news that nobody took, a week."""

FIRST_WAIT, LONGEST_WAIT = 30.0, 3600.0
"""Seconds until a letter that did not go out is tried again: doubled each time."""

#: As text: SQLite proves a partial index against a literal only (M3).
WAITING: ColumnElement[str] = literal_column("'waiting'")

PATIENCE = 3 * 86_400.0
"""Seconds after which a letter that does not go out is given up."""

FORGOTTEN = 14 * 86_400.0
"""Seconds after which one is given up that nobody tries to send: its client is declared nowhere any more."""


class Delivery(NamedTuple):
    """A letter to one recipient, taken."""

    id: int
    recipient: str
    masked: str
    claim_no: int
    #: From 1.
    attempts: int
    #: Nobody will try again after this one.
    is_last: bool
    #: Whoever took it before has said nothing of it, and may have sent it.
    is_orphan: bool


@dataclass(frozen=True, slots=True)
class TakenLetter:
    """A letter and those of its deliveries that are due, taken by this process for `LEASE` seconds."""

    id: int
    client: str
    what: str
    event: str
    level: str
    subject: str
    body: str
    data: dict[str, Any]
    created_at: datetime
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True)
class LetterView:
    """A letter as people look at it."""

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
    """A notice as people look at it."""

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


def wait(attempts: int) -> float:
    """Return the seconds until a delivery that has failed so often is tried again."""
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempts - 1, 20))


class Letters:
    """The outbox of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        is_waiting = delivery.c.state == WAITING
        earlier = delivery.alias("earlier")
        # One after the other to the same reader: nobody is told that something is over before it began.
        is_first = ~exists().where(
            earlier.c.state == WAITING, earlier.c.notice == delivery.c.notice, earlier.c.recipient == delivery.c.recipient,
            earlier.c.id < delivery.c.id,
        )  # fmt: skip
        is_free = or_(delivery.c.lease_until.is_(None), delivery.c.lease_until <= db.now)
        is_due = and_(is_waiting, delivery.c.next_at <= db.now, is_free, is_first)
        of_clients = letter.c.client.in_(bindparam("b_clients", expanding=True))
        due = select(delivery.c.letter).where(is_due)
        self._look = (
            select(letter.c.id)
            .where(letter.c.id.in_(due), of_clients, letter.c.id > bindparam("b_after"))
            .order_by(letter.c.id)
            .limit(1)
        )
        # The letter is the lock: of two processes one goes on to the next letter.
        self._next = self._look.with_for_update(of=letter, skip_locked=True)
        mine = delivery.c.letter == bindparam("b_letter")
        self._take = (
            update(delivery)
            .where(mine, is_due)
            .values(
                claim_no=delivery.c.claim_no + 1, attempts=delivery.c.attempts + 1, lease_until=db.from_now("lease"),
            )
            .returning(
                delivery.c.id, delivery.c.recipient, delivery.c.masked, delivery.c.claim_no, delivery.c.attempts,
                (delivery.c.created_at <= db.from_now("patience")).label("is_last"),
                # As it is: in RETURNING, SQLite 3.40 takes a NULL of this row for something when it is asked "IS NULL".
                delivery.c.error,
            )
        )  # fmt: skip
        self._letter = select(letter).where(letter.c.id == bindparam("b_letter"))
        held = and_(delivery.c.id == bindparam("b_id"), delivery.c.claim_no == bindparam("b_claim"), is_waiting)
        self._sent = (
            update(delivery)
            .where(held)
            .values(state="sent", sent_at=db.now, via=bindparam("b_via"), lease_until=None, error=None)
        )
        # The channel is there again: what waits for it waits no longer.
        self._rouse = update(delivery).where(
            is_waiting, delivery.c.recipient == bindparam("b_recipient"), delivery.c.next_at > db.now,
            delivery.c.lease_until.is_(None),
        ).values(next_at=db.now)  # fmt: skip
        self._again = update(delivery).where(held).values(
            next_at=db.from_now("wait"), lease_until=None, error=bindparam("b_error")
        )  # fmt: skip
        self._never = update(delivery).where(held).values(state="failed", lease_until=None, error=bindparam("b_error"))
        self._holds = select(delivery.c.id).where(held, delivery.c.lease_until > db.from_now("lease"))
        self._soon = select(func.count()).where(is_waiting)

    @again
    def take(self, clients: Sequence[str], *, after: int = 0, lease: float = LEASE) -> TakenLetter | None:
        """Take the next letter that is due, with all of its deliveries that are.

        Args:
            clients: whose letters this process can send.
            after: the letter to go on behind.
            lease: seconds that others leave it to us.
        """
        wanted = {"b_clients": list(clients), "b_after": after}
        with self._db.read() as connection:
            # Who looks in vain must not ask SQLite for its writer.
            if not clients or connection.execute(self._look, wanted).one_or_none() is None:
                return None
        with self._db.write() as connection:
            number = connection.execute(self._next, wanted).scalar_one_or_none()
            if number is None:
                return None
            rows = connection.execute(self._take, {"b_letter": number, "lease": lease, "patience": -PATIENCE}).all()
            text = connection.execute(self._letter, {"b_letter": number}).one()
        deliveries = tuple(
            Delivery(
                row.id, row.recipient, row.masked, row.claim_no, row.attempts, row.is_last,
                row.attempts > 1 and row.error is None,
            )
            for row in sorted(rows, key=lambda row: row.id)
        )  # fmt: skip
        return TakenLetter(
            text.id, text.client, text.what, text.event, text.level, text.subject, text.body, text.data or {}, text.created_at,
            deliveries,
        )  # fmt: skip

    def holds(self, one: Delivery, *, seconds: float) -> bool:
        """Tell whether a delivery is still ours, for so many seconds more: then it may be sent."""
        with self._db.read() as connection:
            wanted = {"b_id": one.id, "b_claim": one.claim_no, "lease": seconds}
            return connection.execute(self._holds, wanted).one_or_none() is not None

    @again
    def sent(self, one: Delivery, *, via: str) -> bool:
        """Note that it went out; `False` where it is another process's by now. What waits for the same recipient is due now."""
        with self._db.write() as connection:
            connection.execute(self._rouse, {"b_recipient": one.recipient})
            return connection.execute(self._sent, {"b_id": one.id, "b_claim": one.claim_no, "b_via": via}).rowcount > 0

    @again
    def failed(self, one: Delivery, error: str, *, seconds: float | None = None) -> bool:
        """Note that it did not go out: it is tried again later, or given up after `PATIENCE`; `False` where it is another's.

        Args:
            one: the delivery.
            error: one line, without a secret.
            seconds: until the next try, in place of the growing wait.
        """
        values = {"b_id": one.id, "b_claim": one.claim_no, "b_error": error[:500]}
        with self._db.write() as connection:
            if one.is_last:
                return connection.execute(self._never, values).rowcount > 0
            later = {**values, "wait": wait(one.attempts) if seconds is None else seconds}
            return connection.execute(self._again, later).rowcount > 0

    def waiting(self) -> int:
        """Count the deliveries that have not gone out yet."""
        with self._db.read() as connection:
            count: int = connection.execute(self._soon).scalar_one()
        return count

    def views(self, client: str | None = None, *, waiting: bool = False, limit: int = 50) -> list[LetterView]:
        """Return letters, the newest first.

        Args:
            client: only this one's.
            waiting: only those that have not gone out to everybody.
            limit: at most so many.
        """
        wanted = select(letter, notice.c.subject.label("sync"), notice.c.kind).join_from(
            letter, notice, notice.c.id == letter.c.notice
        )
        if client is not None:
            wanted = wanted.where(letter.c.client == client)
        if waiting:
            wanted = wanted.where(letter.c.id.in_(select(delivery.c.letter).where(delivery.c.state == WAITING)))
        with self._db.read() as connection:
            letters = connection.execute(wanted.order_by(letter.c.id.desc()).limit(limit)).all()
            of = select(delivery).where(delivery.c.letter.in_([row.id for row in letters])).order_by(delivery.c.id)
            deliveries = connection.execute(of).all() if letters else []
        shown: dict[int, list[dict[str, Any]]] = {}
        for row in deliveries:
            names = ("state", "attempts", "sent_at", "next_at", "via", "error")
            shown.setdefault(row.letter, []).append({"to": row.masked, **{name: getattr(row, name) for name in names}})
        return [
            LetterView(
                row.id, row.notice, row.client, row.sync, row.kind, row.level, row.what, row.subject, row.created_at,
                shown.get(row.id, []),
            )
            for row in letters
        ]  # fmt: skip

    def notices(self, client: str | None = None, *, open: bool = True, limit: int = 50) -> list[NoticeView]:
        """Return notices, the newest first.

        Args:
            client: only this one's.
            open: only those that are not over.
            limit: at most so many.
        """
        wanted = select(notice).order_by(notice.c.id.desc()).limit(limit)
        if client is not None:
            wanted = wanted.where(notice.c.client == client)
        if open:
            wanted = wanted.where(notice.c.closed_at.is_(None))
        with self._db.read() as connection:
            rows = connection.execute(wanted).all()
        return [
            NoticeView(
                row.id, row.client, row.subject, row.kind, row.level, row.causes or [], row._mapping["count"],
                row.opened_at, row.updated_at, row.closed_at, row.closed_by,
            )
            for row in rows
        ]  # fmt: skip

    @again
    def prune(self) -> int:
        """Remove what is kept no longer, and give up what nobody sends; return the number of letters that were removed."""
        ids = Rows(self._db, {"id": "id"})
        named = select(ids.id).select_from(ids.table)
        old = letter.c.created_at < self._db.from_now("age")
        on_the_way = exists().where(delivery.c.letter == letter.c.id, delivery.c.state == WAITING)
        with self._db.read() as connection:
            wanted = select(letter.c.id).where(old, ~on_the_way).limit(1000)
            found = connection.execute(wanted, {"age": -KEEP_DAYS * 86_400.0}).scalars().all()
        with self._db.write() as connection:
            if found:
                bound = ids.bind([(one,) for one in found])
                connection.execute(delete(delivery).where(delivery.c.letter.in_(named)), bound)
                connection.execute(delete(letter).where(letter.c.id.in_(named)), bound)
            is_left = and_(
                delivery.c.state == WAITING, delivery.c.lease_until.is_(None), delivery.c.created_at < self._db.from_now("age")
            )
            forgotten = update(delivery).where(is_left).values(
                state="failed", error=func.coalesce(delivery.c.error, "nobody who could send it has come by for two weeks")
            )  # fmt: skip
            connection.execute(forgotten, {"age": -FORGOTTEN})
            over = notice.c.closed_at < self._db.from_now("age")
            # Nobody looks after it any more; a pause that waits for a person may wait for long.
            is_paused = exists().where(pause.c.client == notice.c.client, pause.c.ended_at.is_(None))
            left = and_(notice.c.closed_at.is_(None), notice.c.updated_at < self._db.from_now("age"), ~is_paused)
            has_letters = exists().where(letter.c.notice == notice.c.id)
            connection.execute(delete(notice).where(or_(over, left), ~has_letters), {"age": -KEEP_DAYS * 86_400.0})
            connection.execute(delete(news).where(news.c.at < self._db.from_now("age")), {"age": -7 * 86_400.0})
        return len(found)
