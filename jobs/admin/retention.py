"""Removes old finished jobs, by the age and number that each queue keeps, with their attempts; also old starts, pauses and runs.

It removes only finished jobs, and keeps the records of entities: an entity's last error is kept longer than its job.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite

from jobs.db.clock import UTCDateTime
from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.db.json_rows import JsonRows
from jobs.queue import KeepPolicy
from jobs.schema.job_tables import attempt, job, maintenance, pause, run, start
from jobs.schema.job_tables import queue as table
from jobs.schema.states import FAILURE, FINISHED

BATCH = 1000
"""Rows in one transaction."""

ORPHAN_BATCH = 10_000
"""Attempts that are read at once to find orphans."""

PAUSE_DAYS = 90
"""Days that ended pauses are kept."""

START_SECONDS = 3600.0
"""Seconds that starts are kept at least; they are also kept for the longest period of a rate."""

_NEVER = datetime(1, 1, 1, tzinfo=UTC)
_DEFAULT = KeepPolicy()


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed."""

    #: Jobs by the state they had.
    jobs: dict[str, int] = field(default_factory=dict)
    #: Attempts of those jobs, and of jobs that were removed before.
    attempts: int = 0
    starts: int = 0
    pauses: int = 0
    runs: int = 0
    #: Whether it was stopped before the end.
    stopped: bool = False

    @property
    def total(self) -> int:
        """The number of jobs."""
        return sum(self.jobs.values())


class Retention:
    """Retention in one database. Several processes may prune at the same time."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._now = select(db.now.label("now"))
        self._policies = select(
            table.c.id, table.c.keep_success_days, table.c.keep_failure_days, table.c.keep_max_items, table.c.rate_seconds
        )
        self._gone = gone = JsonRows(db, {"id": "id"})
        ids = select(gone.id).select_from(gone.table)
        # A job that a person has requeued since it was read is not finished, and is kept.
        is_old = and_(job.c.finished_at.is_not(None), job.c.finished_at <= bindparam("b_before", type_=UTCDateTime()))
        self._delete = delete(job).where(job.c.id.in_(ids), is_old).returning(job.c.id, job.c.state)
        self._delete_attempts = delete(attempt).where(attempt.c.job_id.in_(ids))
        self._orphans = select(attempt.c.id).where(
            attempt.c.id > bindparam("b_after"),
            attempt.c.id <= bindparam("b_after") + ORPHAN_BATCH,
            # For "NOT EXISTS" PostgreSQL would use a join that reads the whole table of jobs each time.
            select(job.c.id).where(job.c.id == attempt.c.job_id).scalar_subquery().is_(None),
        )
        # Two subqueries, because SQLite reads a whole index for min and max in one query.
        self._span = select(*(select(edge(attempt.c.id)).scalar_subquery() for edge in (func.min, func.max)))
        insert_into = postgresql.insert if db.dialect == "postgresql" else sqlite.insert
        take = insert_into(maintenance).values(name=bindparam("b_name"), next_at=db.from_now("every"))
        self._not_due = select(maintenance.c.name).where(
            maintenance.c.name == bindparam("b_name"), maintenance.c.next_at > db.now
        )
        self._claim_task = take.on_conflict_do_update(
            index_elements=["name"], set_={"next_at": take.excluded.next_at}, where=maintenance.c.next_at <= db.now
        ).returning(maintenance.c.name)

    @retry_on_conflict
    def is_due(self, name: str, every: float) -> bool:
        """Tell whether a maintenance task is due and the caller must do it now.

        Of all processes one gets `True` in `every` seconds. If it dies, another one does the task when it is due again.
        """
        with self._db.read() as connection:
            if connection.execute(self._not_due, {"b_name": name}).one_or_none() is not None:
                return False
        with self._db.write(single=True) as connection:
            return connection.execute(self._claim_task, {"b_name": name, "every": every}).one_or_none() is not None

    def prune(self, *, stop: Callable[[], bool] = lambda: False, orphans: bool = True) -> Pruned:
        """Remove the jobs that the queues do not keep, in transactions of at most `BATCH` jobs.

        Args:
            stop: called before each transaction; ends the work if it returns true.
            orphans: also remove attempts whose job does not exist any more, which reads all attempts.
        """
        counts: Counter[str] = Counter()
        steps = self._steps(orphans)
        stopped = False
        while not (stopped := stop()) and (step := next(steps, None)) is not None:
            counts.update(step)
        jobs = {state: counts[state] for state in FINISHED if counts[state]}
        return Pruned(jobs, counts["attempt"], counts["start"], counts["pause"], counts["run"], stopped)

    def _steps(self, orphans: bool) -> Iterator[Counter[str]]:
        """Run one transaction for each step, and yield the numbers of removed rows."""
        with self._db.read() as connection:
            now = UTCDateTime().process_result_value(connection.execute(self._now).scalar_one(), None)
            rows = connection.execute(self._policies).all()
        assert now is not None
        keep = {row.id: KeepPolicy(row.keep_success_days, row.keep_failure_days, row.keep_max_items) for row in rows}
        yield from self._by_age(now, keep)
        for queue, policy in sorted(keep.items()):
            if policy.max_items is not None:
                yield from self._by_number(queue, policy.max_items)
        if orphans:
            yield from self._without_job()
        looks_back = max([START_SECONDS, *(row.rate_seconds or 0 for row in rows)])
        yield from self._old(start, start.c.at < now - timedelta(seconds=looks_back))
        yield from self._old(pause, pause.c.ended_at < now - timedelta(days=PAUSE_DAYS))
        yield from self._old(run, *_old_runs(now, keep))

    def _by_age(self, now: datetime, keep: dict[str, KeepPolicy]) -> Iterator[Counter[str]]:
        """Remove jobs that are too old, of all queues in one walk along the index."""
        policies = [*keep.values(), _DEFAULT]
        success = [_before(now, policy.success_days) for policy in policies]
        failure = [_before(now, policy.failure_days) for policy in policies]
        cutoff = case((job.c.state == FAILURE, _of_queue(keep, failure)), else_=_of_queue(keep, success))
        newest = max(success + failure)
        yield from self._walk(newest, job.c.finished_at < cutoff, job.c.finished_at < newest)

    def _by_number(self, queue: str, most: int) -> Iterator[Counter[str]]:
        """Remove all but the newest finished jobs of a queue; of jobs that finished at the same time the higher ids are kept."""
        newest_first = select(job.c.finished_at, job.c.id).where(job.c.queue == queue, job.c.finished_at.is_not(None))
        with self._db.read() as connection:
            edge = connection.execute(
                newest_first.order_by(job.c.finished_at.desc(), job.c.id.desc()).offset(most).limit(1)
            ).one_or_none()
        if edge is None:
            return
        last = tuple_(literal(edge.finished_at, UTCDateTime()), literal(edge.id, BigInteger))
        older = and_(job.c.finished_at <= edge.finished_at, tuple_(job.c.finished_at, job.c.id) <= last)
        yield from self._walk(edge.finished_at, job.c.queue == queue, older)

    def _walk(self, newest: datetime, *conditions: ColumnElement[bool]) -> Iterator[Counter[str]]:
        """Remove the finished jobs that match, the oldest first. They are read outside of the transactions."""
        oldest = select(job.c.finished_at, job.c.id).where(job.c.finished_at.is_not(None), *conditions)
        oldest = oldest.order_by(job.c.finished_at, job.c.id).limit(BATCH)
        page = oldest
        while True:
            with self._db.read() as connection:
                found = connection.execute(page).all()
            if not found:
                return
            yield self._remove([row.id for row in found], newest)
            at, last = found[-1]
            after = tuple_(literal(at, UTCDateTime()), literal(last, BigInteger))
            page = oldest.where(job.c.finished_at >= at, tuple_(job.c.finished_at, job.c.id) > after)

    @retry_on_conflict
    def _remove(self, ids: list[int], newest: datetime) -> Counter[str]:
        with self._db.write() as connection:
            gone = connection.execute(self._delete, {**self._bound(ids), "b_before": newest}).all()
            counts = Counter(row.state for row in gone)
            if gone:
                counts["attempt"] = connection.execute(self._delete_attempts, self._bound(row.id for row in gone)).rowcount
        return counts

    def _without_job(self) -> Iterator[Counter[str]]:
        with self._db.read() as connection:
            first, last = connection.execute(self._span).one()
        for after in range((first or 1) - 1, last or 0, ORPHAN_BATCH):
            with self._db.read() as connection:
                ids = connection.execute(self._orphans, {"b_after": after}).scalars().all()
            for begin in range(0, len(ids), BATCH):
                yield self._drop(attempt, ids[begin : begin + BATCH])

    def _old(self, rows: Table, *conditions: ColumnElement[bool]) -> Iterator[Counter[str]]:
        oldest = select(rows.c.id).where(*conditions).limit(BATCH)
        while True:
            with self._db.read() as connection:
                ids = connection.execute(oldest).scalars().all()
            if not ids:
                return
            yield self._drop(rows, ids)

    @retry_on_conflict
    def _drop(self, rows: Table, ids: Sequence[int]) -> Counter[str]:
        named = select(self._gone.id).select_from(self._gone.table)
        with self._db.write() as connection:
            return Counter({rows.name: connection.execute(delete(rows).where(rows.c.id.in_(named)), self._bound(ids)).rowcount})

    def _bound(self, ids: Iterable[int]) -> dict[str, Any]:
        return self._gone.bind([(one,) for one in ids])


def _before(now: datetime, days: float | None) -> datetime:
    """Return the time before which finished jobs are removed; `None` days keep all."""
    if days is None or days >= (now - _NEVER).days:
        return _NEVER
    return now - timedelta(days=days)


def _old_runs(now: datetime, keep: dict[str, KeepPolicy]) -> list[ColumnElement[bool]]:
    """Return the conditions of runs that are kept no longer: as jobs by age, and never the last one or the last success."""
    policies = [*keep.values(), _DEFAULT]
    success = _of_queue(keep, [_before(now, policy.success_days) for policy in policies], run.c.queue)
    others = _of_queue(keep, [_before(now, policy.failure_days) for policy in policies], run.c.queue)
    is_good = run.c.state.in_(("success", "skipped"))
    last = select(func.max(run.c.id)).group_by(run.c.sync)
    whole = last.where(run.c.state == literal_column("'success'"), run.c.stopped == literal_column("'end'"))
    return [run.c.ended_at < case((is_good, success), else_=others), run.c.id.not_in(last), run.c.id.not_in(whole)]


def _of_queue(keep: dict[str, KeepPolicy], cutoffs: list[datetime], of: Column[Any] = job.c.queue) -> ColumnElement[datetime]:
    """Return an expression for the cutoff of the queue in this column; the last cutoff is for queues without a row."""
    *own, default = cutoffs
    queues: dict[datetime, list[str]] = {}
    for queue, cutoff in zip(keep, own, strict=True):
        if cutoff != default:
            queues.setdefault(cutoff, []).append(queue)
    other = literal(default, UTCDateTime())
    whens = [(of.in_(names), literal(cutoff, UTCDateTime())) for cutoff, names in queues.items()]
    return case(*whens, else_=other) if whens else other
