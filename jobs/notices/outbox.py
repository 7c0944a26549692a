"""Holds messages until they are sent: claims deliveries, records how they went, retries them, gives them up.

A message is claimed with a lease and a fence, as a job is, so two processes never send it at once, and one that was too slow
records nothing. A message is sent twice only if a process dies between sending it and recording that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, bindparam, delete, exists, func, literal_column, or_, select, update

from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.db.json_rows import JsonRows
from jobs.schema.job_tables import delivery, notice, outbox_message, pause, unreported_failure

LEASE = 120.0
"""Seconds for which a claimed message is left to the process that claimed it."""

KEEP_DAYS = 90
"""Days that messages and closed notices are kept."""

KEEP_UNREPORTED_DAYS = 7
"""Days after which a failure that no process reports is removed."""

FIRST_DELAY, LONGEST_DELAY = 30.0, 3600.0
"""Seconds until a failed delivery is tried again: doubled each time."""

#: As text, because SQLite uses a partial index only with a literal.
WAITING: ColumnElement[str] = literal_column("'waiting'")

GIVE_UP_AFTER = 3 * 86_400.0
"""Seconds after which a delivery that keeps failing is given up."""

ABANDONED_AFTER = 14 * 86_400.0
"""Seconds after which a delivery is given up that no process tries, because its client is not declared any more."""

_DAY = 86_400.0


class Delivery(NamedTuple):
    """The claimed delivery of a message to one recipient."""

    id: int
    recipient: str
    masked: str
    claim_no: int
    #: From 1.
    attempts: int
    #: It will not be tried again after this attempt.
    is_last: bool
    #: The process that claimed it before has recorded no result, and may have sent it.
    is_orphan: bool


@dataclass(frozen=True, slots=True)
class ClaimedMessage:
    """A message with those of its deliveries that are due, claimed by this process for `LEASE` seconds."""

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


def retry_delay(attempts: int) -> float:
    """Return the seconds until a delivery that has failed so often is tried again."""
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempts - 1, 20))


class Outbox:
    """The outbox of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        is_waiting = delivery.c.state == WAITING
        earlier = delivery.alias("earlier")
        # One after the other to the same recipient, who must not read that trouble is over before it began.
        is_first = ~exists().where(
            earlier.c.state == WAITING,
            earlier.c.notice == delivery.c.notice,
            earlier.c.recipient == delivery.c.recipient,
            earlier.c.id < delivery.c.id,
        )
        is_free = or_(delivery.c.lease_until.is_(None), delivery.c.lease_until <= db.now)
        is_due = and_(is_waiting, delivery.c.next_at <= db.now, is_free, is_first)
        of_clients = outbox_message.c.client.in_(bindparam("b_clients", expanding=True))
        due = select(delivery.c.letter).where(is_due)
        self._find = (
            select(outbox_message.c.id)
            .where(outbox_message.c.id.in_(due), of_clients, outbox_message.c.id > bindparam("b_after"))
            .order_by(outbox_message.c.id)
            .limit(1)
        )
        # Locks the message; another process skips it and claims the next one.
        self._lock = self._find.with_for_update(of=outbox_message, skip_locked=True)
        self._claim = (
            update(delivery)
            .where(delivery.c.letter == bindparam("b_message"), is_due)
            .values(claim_no=delivery.c.claim_no + 1, attempts=delivery.c.attempts + 1, lease_until=db.from_now("lease"))
            .returning(
                delivery.c.id,
                delivery.c.recipient,
                delivery.c.masked,
                delivery.c.claim_no,
                delivery.c.attempts,
                (delivery.c.created_at <= db.from_now("give_up")).label("is_last"),
                # Not as "IS NULL": in RETURNING, SQLite 3.40 answers that wrongly for a NULL of the updated row.
                delivery.c.error,
            )
        )
        self._message = select(outbox_message).where(outbox_message.c.id == bindparam("b_message"))
        is_ours = and_(delivery.c.id == bindparam("b_id"), delivery.c.claim_no == bindparam("b_claim"), is_waiting)
        self._mark_sent = (
            update(delivery)
            .where(is_ours)
            .values(state="sent", sent_at=db.now, via=bindparam("b_via"), lease_until=None, error=None)
        )
        # The channel works again, so other messages to this recipient need not wait any longer.
        self._make_due = (
            update(delivery)
            .where(
                is_waiting,
                delivery.c.recipient == bindparam("b_recipient"),
                delivery.c.next_at > db.now,
                delivery.c.lease_until.is_(None),
            )
            .values(next_at=db.now)
        )
        self._retry = (
            update(delivery).where(is_ours).values(next_at=db.from_now("delay"), lease_until=None, error=bindparam("b_error"))
        )
        self._give_up = update(delivery).where(is_ours).values(state="failed", lease_until=None, error=bindparam("b_error"))
        self._is_claimed = select(delivery.c.id).where(is_ours, delivery.c.lease_until > db.from_now("lease"))
        self._count_waiting = select(func.count()).where(is_waiting)

    @retry_on_conflict
    def claim(self, clients: Sequence[str], *, after: int = 0, lease: float = LEASE) -> ClaimedMessage | None:
        """Claim the next message that is due, with all of its deliveries that are due.

        Args:
            clients: the clients whose messages this process can send.
            after: only messages with a higher id.
            lease: seconds for which it is left to this process.
        """
        wanted = {"b_clients": list(clients), "b_after": after}
        with self._db.read() as connection:
            # Read first, so that SQLite's writer is not needed if nothing is due.
            if not clients or connection.execute(self._find, wanted).one_or_none() is None:
                return None
        with self._db.write() as connection:
            message_id = connection.execute(self._lock, wanted).scalar_one_or_none()
            if message_id is None:
                return None
            rows = connection.execute(self._claim, {"b_message": message_id, "lease": lease, "give_up": -GIVE_UP_AFTER}).all()
            message = connection.execute(self._message, {"b_message": message_id}).one()
        deliveries = tuple(
            Delivery(
                id=row.id,
                recipient=row.recipient,
                masked=row.masked,
                claim_no=row.claim_no,
                attempts=row.attempts,
                is_last=row.is_last,
                is_orphan=row.attempts > 1 and row.error is None,
            )
            for row in sorted(rows, key=lambda row: row.id)
        )
        return ClaimedMessage(
            id=message.id,
            client=message.client,
            what=message.what,
            event=message.event,
            level=message.level,
            subject=message.subject,
            body=message.body,
            data=message.data or {},
            created_at=message.created_at,
            deliveries=deliveries,
        )

    def is_claimed(self, one: Delivery, *, seconds: float) -> bool:
        """Tell whether our claim lasts for at least so many seconds more, so that the delivery may be sent now."""
        with self._db.read() as connection:
            wanted = {"b_id": one.id, "b_claim": one.claim_no, "lease": seconds}
            return connection.execute(self._is_claimed, wanted).one_or_none() is not None

    @retry_on_conflict
    def mark_sent(self, one: Delivery, *, via: str) -> bool:
        """Record that a delivery was sent, and make everything that waits for the same recipient due.

        Returns:
            `False` if another process has claimed it in the meantime.
        """
        with self._db.write() as connection:
            connection.execute(self._make_due, {"b_recipient": one.recipient})
            return connection.execute(self._mark_sent, {"b_id": one.id, "b_claim": one.claim_no, "b_via": via}).rowcount > 0

    @retry_on_conflict
    def mark_failed(self, one: Delivery, error: str, *, seconds: float | None = None) -> bool:
        """Record that a delivery failed: it is tried again later, or given up after `GIVE_UP_AFTER`.

        Args:
            one: the delivery.
            error: one line, without a secret.
            seconds: until the next try, instead of the growing delay.

        Returns:
            `False` if another process has claimed it in the meantime.
        """
        values = {"b_id": one.id, "b_claim": one.claim_no, "b_error": error[:500]}
        with self._db.write() as connection:
            if one.is_last:
                return connection.execute(self._give_up, values).rowcount > 0
            delay = retry_delay(one.attempts) if seconds is None else seconds
            return connection.execute(self._retry, {**values, "delay": delay}).rowcount > 0

    def count_waiting(self) -> int:
        """Count the deliveries that were not sent yet."""
        with self._db.read() as connection:
            count: int = connection.execute(self._count_waiting).scalar_one()
        return count

    @retry_on_conflict
    def prune(self) -> int:
        """Remove old messages, notices and unreported failures, and give up deliveries that no process tries.

        Returns:
            The number of messages that were removed.
        """
        ids = JsonRows(self._db, {"id": "id"})
        named = select(ids.id).select_from(ids.table)
        is_old = outbox_message.c.created_at < self._db.from_now("age")
        has_waiting = exists().where(delivery.c.letter == outbox_message.c.id, delivery.c.state == WAITING)
        with self._db.read() as connection:
            wanted = select(outbox_message.c.id).where(is_old, ~has_waiting).limit(1000)
            found = connection.execute(wanted, {"age": -KEEP_DAYS * _DAY}).scalars().all()
        with self._db.write() as connection:
            if found:
                bound = ids.bind([(one,) for one in found])
                connection.execute(delete(delivery).where(delivery.c.letter.in_(named)), bound)
                connection.execute(delete(outbox_message).where(outbox_message.c.id.in_(named)), bound)
            is_abandoned = and_(
                delivery.c.state == WAITING, delivery.c.lease_until.is_(None), delivery.c.created_at < self._db.from_now("age")
            )
            error = func.coalesce(delivery.c.error, "nobody who could send it has come by for two weeks")
            connection.execute(
                update(delivery).where(is_abandoned).values(state="failed", error=error), {"age": -ABANDONED_AFTER}
            )
            is_closed = notice.c.closed_at < self._db.from_now("age")
            # Open notices are removed too if nothing updates them any more; but a pause may wait for a person for long.
            is_paused = exists().where(pause.c.client == notice.c.client, pause.c.ended_at.is_(None))
            is_forgotten = and_(notice.c.closed_at.is_(None), notice.c.updated_at < self._db.from_now("age"), ~is_paused)
            has_messages = exists().where(outbox_message.c.notice == notice.c.id)
            connection.execute(delete(notice).where(or_(is_closed, is_forgotten), ~has_messages), {"age": -KEEP_DAYS * _DAY})
            is_unreported = unreported_failure.c.at < self._db.from_now("age")
            connection.execute(delete(unreported_failure).where(is_unreported), {"age": -KEEP_UNREPORTED_DAYS * _DAY})
        return len(found)
