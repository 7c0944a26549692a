"""What people do to jobs: retry, release, cancel, delete. Each looks at the job's state in the transaction that changes it.

Knows no command line. Who is on the other side of a claim learns of it by the fence: the claim's number has gone up.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, case, delete, func, literal_column, select, update

from jobs import models
from jobs.contention import again
from jobs.database import Database
from jobs.enqueue import CHANNEL
from jobs.filter import LARGEST_ID, Filter
from jobs.job import Move
from jobs.models import attempt, job, record
from jobs.refusal import LISTED, UNKNOWN, Commanded, Refused, refusal
from jobs.rows import Rows
from jobs.settle import PROCESSING, QUEUED, Settlement

BATCH = 1000
"""Jobs in one transaction: short enough to keep no worker waiting, and what is done is done when a command is stopped."""


class _Row(NamedTuple):
    """What a command looks at, with the row locked."""

    id: int
    state: str
    queue: str
    type: str
    key: str | None
    fingerprint: str | None
    claim_no: int
    phase: str


_COLUMNS = (job.c.id, job.c.state, job.c.queue, job.c.type, job.c.key, job.c.fingerprint, job.c.claim_no, job.c.phase)
_Work = Callable[[Connection, list[_Row], str], dict[int, str]]


class Commands:
    """Commands on the jobs of one database.

    Each takes job ids, or a `Filter`, works in transactions of at most `BATCH` jobs, the newest first, and may be stopped
    and given again at any time. `by` is who gave it, for the attempt's row.
    """

    def __init__(self, db: Database, settlement: Settlement) -> None:
        self._db = db
        self._settlement = settlement
        self._named = named = Rows(db, {"id": "id"})
        # Everybody locks in the order of ids.
        self._look = (
            select(*_COLUMNS).join_from(named.table, job, job.c.id == named.id).order_by(job.c.id).with_for_update(of=job)
        )
        self._requeued = requeued = Rows(db, {"id": "id", "twin": "id"})
        other = job.alias("twin")
        queued_twin = (
            select(func.max(other.c.id))
            .where(other.c.state == QUEUED, other.c.queue == job.c.queue, other.c.fingerprint == job.c.fingerprint)
            .scalar_subquery()
        )
        twin = func.coalesce(queued_twin, requeued.twin)
        self._retry = (
            update(job)
            .where(job.c.id == requeued.id, job.c.state == literal_column("'failure'"))
            .values(
                state=case((twin.is_not(None), models.SUPERSEDED), else_=models.QUEUED),
                superseded_by=twin,
                finished_at=case((twin.is_not(None), db.now), else_=None),
                available_at=db.now,
                retries=job.c.retries + case((twin.is_(None), 1), else_=0),
                rescues=0,
            )
            .returning(job.c.id, job.c.state)
        )
        self._cancel = (
            update(job)
            .where(job.c.id == named.id, job.c.state == QUEUED)
            .values(state=models.CANCELLED, message=bindparam("b_message"), finished_at=db.now, claim_no=job.c.claim_no + 1)
            .returning(job.c.id, job.c.state)
        )
        self._fence = update(job).where(job.c.id == named.id).values(claim_no=job.c.claim_no + 1)
        self._is_named = job.c.id.in_(select(named.id).select_from(named.table))
        self._forget = delete(attempt).where(attempt.c.job_id.in_(select(named.id).select_from(named.table)))
        self._delete = delete(job).where(self._is_named, job.c.state != PROCESSING).returning(job.c.id)
        self._entities = entities = Rows(db, {"sync": "text", "key": "text"})
        self._heal = (
            update(record)
            .where(record.c.sync == entities.sync, record.c.key == entities.key, record.c.is_poison)
            .values(is_poison=False)
        )
        self._wake = select(func.pg_notify(CHANNEL, bindparam("b_queue")))

    def retry(self, which: Filter | Iterable[int], *, by: str = "") -> Commanded:
        """Queue failed jobs again, available now (AQ-15, AQ-16). Counts a retry; rescues start from nothing; the message stays.

        A job whose twin is queued gives way to it; of failed twins the newest goes back. An entity that was remembered as
        poison is so no longer.
        """
        return self._each("retry", which, by, self._do_retry)

    def release(self, which: Filter | Iterable[int], *, by: str = "") -> Commanded:
        """Take jobs in processing from their workers and queue them again, available now, no attempt used (AQ-41, E-16).

        What the old worker comes to is lost. A job whose twin is queued gives way to it.
        """
        return self._each("release", which, by, self._do_release)

    def cancel(self, which: Filter | Iterable[int], *, by: str = "") -> Commanded:
        """End jobs that are queued or in processing. What a worker comes to in the meantime is lost."""
        return self._each("cancel", which, by, self._do_cancel)

    def delete(self, which: Filter | Iterable[int], *, by: str = "") -> Commanded:
        """Delete jobs and their attempts, whatever their state, but for those in processing (AQ-42, E-43).

        The ledger of their entities stays.
        """
        return self._each("delete", which, by, self._do_delete)

    def count(self, which: Filter | Iterable[int]) -> dict[str, int]:
        """Count by state the jobs that a command would look at."""
        wanted = _filter(which)
        statement = select(job.c.state, func.count().label("n")).where(*wanted.conditions(self._db.dialect)).group_by(job.c.state)
        found: Counter[str] = Counter()
        with self._db.read() as connection:
            if wanted.ids is None:
                return {row.state: row.n for row in connection.execute(statement)}
            for ids in _chunks(wanted.ids):
                found.update({row.state: row.n for row in connection.execute(statement.where(self._is_named), self._bound(ids))})
        return dict(found)

    def _each(self, command: str, which: Filter | Iterable[int], by: str, work: _Work) -> Commanded:
        wanted = _filter(which)
        done = superseded = 0
        refused: list[Refused] = []
        refusals: Counter[tuple[str, str]] = Counter()
        for ids in self._batches(wanted):
            moved, left = self._batch(command, wanted, ids, by, work)
            done += len(moved)
            superseded += sum(state == models.SUPERSEDED for state in moved.values())
            refused += left[: LISTED - len(refused)]
            refusals.update((one.state, one.reason) for one in left)
        counted = tuple((state, reason, count) for (state, reason), count in sorted(refusals.items()))
        return Commanded(done, tuple(sorted(refused)), counted, superseded)

    @again
    def _batch(
        self, command: str, wanted: Filter, ids: Sequence[int], by: str, work: _Work
    ) -> tuple[dict[int, str], list[Refused]]:
        """Do one transaction; return the new states, and what was refused."""
        with self._db.write() as connection:
            rows = [_Row(*row) for row in connection.execute(self._look, self._bound(ids))]
            left = [Refused(row.id, row.state, reason) for row in rows if (reason := _reason(command, wanted, row)) is not None]
            if wanted.names_ids_only:
                left += [Refused(one, UNKNOWN, "no such job") for one in sorted(set(ids) - {row.id for row in rows})]
            kept = set(ids) - {one.id for one in left}
            rows = [row for row in rows if row.id in kept]
            moved = work(connection, rows, by) if rows else {}
            if self._db.dialect == "postgresql" and models.QUEUED in moved.values():
                for queue in sorted({row.queue for row in rows if moved.get(row.id) == models.QUEUED}):
                    connection.execute(self._wake, {"b_queue": queue})
        return moved, left

    def _batches(self, wanted: Filter) -> Iterator[list[int]]:
        """Yield the ids that fit, the newest first: so of failed twins the newest goes back, whichever batch they are in."""
        conditions = wanted.conditions(self._db.dialect)
        if wanted.ids is not None:
            for ids in _chunks(wanted.ids):
                yield ids if wanted.names_ids_only else self._fitting(ids, conditions)
            return
        statement = select(job.c.id).where(*conditions).order_by(job.c.id.desc()).limit(BATCH)
        before: int | None = None
        while True:
            page = statement if before is None else statement.where(job.c.id < before)
            with self._db.read() as connection:
                found = list(connection.execute(page).scalars())
            if not found:
                return
            yield found
            before = found[-1]

    def _fitting(self, ids: Sequence[int], conditions: Sequence[Any]) -> list[int]:
        statement = select(job.c.id).where(self._is_named, *conditions)
        with self._db.read() as connection:
            return list(connection.execute(statement, self._bound(ids)).scalars())

    def _bound(self, ids: Iterable[int]) -> dict[str, Any]:
        return self._named.bind([(one,) for one in sorted(ids) if 0 < one <= LARGEST_ID])

    def _do_retry(self, connection: Connection, rows: list[_Row], _by: str) -> dict[int, str]:
        newest: dict[tuple[str, str], int] = {}
        for row in rows:
            if row.fingerprint is not None:
                newest[row.queue, row.fingerprint] = row.id
        twins = [(row.id, _other(newest.get((row.queue, row.fingerprint or "")), row.id)) for row in rows]
        moved = {row.id: row.state for row in connection.execute(self._retry, self._requeued.bind(twins))}
        entities = sorted({(row.type, row.key) for row in rows if row.key is not None})
        if entities:
            connection.execute(self._heal, self._entities.bind(entities))
        return moved

    def _do_release(self, connection: Connection, rows: list[_Row], by: str) -> dict[int, str]:
        return self._take_back(connection, rows, models.QUEUED, "released", by)

    def _do_cancel(self, connection: Connection, rows: list[_Row], by: str) -> dict[int, str]:
        moved: dict[int, str] = {}
        waiting = [row.id for row in rows if row.state == models.QUEUED]
        working = [row for row in rows if row.state == models.PROCESSING]
        if waiting:
            values = {**self._bound(waiting), "b_message": _said("cancelled", by)}
            moved.update((row.id, row.state) for row in connection.execute(self._cancel, values))
        if working:
            moved |= self._take_back(connection, working, models.CANCELLED, "cancelled", by)
        return moved

    def _take_back(self, connection: Connection, rows: list[_Row], state: str, outcome: str, by: str) -> dict[int, str]:
        message = _said(outcome, by)
        moves = [Move(row.id, row.claim_no, row.fingerprint, state, outcome, message, phase=row.phase) for row in rows]
        moved = self._settlement.settle(connection, moves)
        connection.execute(self._fence, self._bound(moved))
        return moved

    def _do_delete(self, connection: Connection, rows: list[_Row], _by: str) -> dict[int, str]:
        ids = self._bound(row.id for row in rows)
        connection.execute(self._forget, ids)
        return dict.fromkeys(connection.execute(self._delete, ids).scalars(), "deleted")


def _filter(which: Filter | Iterable[int]) -> Filter:
    return which if isinstance(which, Filter) else Filter(ids=tuple(which))


def _chunks(ids: Iterable[int]) -> Iterator[list[int]]:
    left = iter(sorted(set(ids), reverse=True))
    while chunk := list(islice(left, BATCH)):
        yield chunk


def _reason(command: str, wanted: Filter, row: _Row) -> str | None:
    if wanted.state is not None and row.state != wanted.state:
        return f"no longer {wanted.state}"  # between the look and the transaction
    return refusal(command, row.state)


def _other(newest: int | None, own: int) -> int | None:
    return None if newest == own else newest


def _said(outcome: str, by: str) -> str:
    return f"{outcome} by {by}" if by else f"{outcome} by hand"
