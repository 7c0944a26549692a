"""Retries, releases, cancels and deletes jobs for people. Each command checks the job's state in the transaction that changes it.

A worker that still has such a job loses its claim, because the claim's number has increased.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, case, delete, func, select, update

from jobs.admin.command_refusals import LISTED, UNKNOWN, CommandResult, Refused, refusal
from jobs.admin.filters import LARGEST_ID, Filter
from jobs.db.change_listener import CHANNEL
from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.db.json_rows import JsonRows
from jobs.finishing.fence import FencedTransitions
from jobs.finishing.transition import Transition
from jobs.schema import states
from jobs.schema.job_tables import attempt, job, record
from jobs.schema.states import FAILURE_LITERAL, PROCESSING_LITERAL, QUEUED_LITERAL

BATCH = 1000
"""Jobs in one transaction: few enough that workers wait only shortly. A command that is stopped keeps what it has committed."""


class _Row(NamedTuple):
    """The columns of a locked row that a command checks."""

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

    Each command takes job ids or a `Filter`, works in transactions of at most `BATCH` jobs, the newest first, and may be stopped
    and repeated at any time. `by` names the person in the attempt's row.
    """

    def __init__(self, db: Database, transitions: FencedTransitions) -> None:
        self._db = db
        self._transitions = transitions
        self._named = named = JsonRows(db, {"id": "id"})
        # All transactions lock in the order of ids, so that they cannot deadlock.
        self._lock_rows = (
            select(*_COLUMNS).join_from(named.table, job, job.c.id == named.id).order_by(job.c.id).with_for_update(of=job)
        )
        self._requeued = requeued = JsonRows(db, {"id": "id", "twin": "id"})
        other = job.alias("twin")
        queued_twin = (
            select(func.max(other.c.id))
            .where(other.c.state == QUEUED_LITERAL, other.c.queue == job.c.queue, other.c.fingerprint == job.c.fingerprint)
            .scalar_subquery()
        )
        twin = func.coalesce(queued_twin, requeued.twin)
        self._retry = (
            update(job)
            .where(job.c.id == requeued.id, job.c.state == FAILURE_LITERAL)
            .values(
                state=case((twin.is_not(None), states.SUPERSEDED), else_=states.QUEUED),
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
            .where(job.c.id == named.id, job.c.state == QUEUED_LITERAL)
            .values(state=states.CANCELLED, message=bindparam("b_message"), finished_at=db.now, claim_no=job.c.claim_no + 1)
            .returning(job.c.id, job.c.state)
        )
        self._fence = update(job).where(job.c.id == named.id).values(claim_no=job.c.claim_no + 1)
        self._is_named = job.c.id.in_(select(named.id).select_from(named.table))
        self._delete_attempts = delete(attempt).where(attempt.c.job_id.in_(select(named.id).select_from(named.table)))
        self._delete = delete(job).where(self._is_named, job.c.state != PROCESSING_LITERAL).returning(job.c.id)
        self._entities = entities = JsonRows(db, {"sync": "text", "key": "text"})
        self._clear_poison = (
            update(record)
            .where(record.c.sync == entities.sync, record.c.key == entities.key, record.c.is_poison)
            .values(is_poison=False)
        )
        self._notify = select(func.pg_notify(CHANNEL, bindparam("b_queue")))

    def retry(self, which: Filter | Iterable[int], *, by: str = "") -> CommandResult:
        """Queue failed jobs again, available now. It counts as a retry, resets the count of rescues and keeps the message.

        A job is superseded if another job of the same fingerprint is queued; of several failed ones the newest is queued. Its
        entity is no longer marked as poison.
        """
        return self._each("retry", which, by, self._do_retry)

    def release(self, which: Filter | Iterable[int], *, by: str = "") -> CommandResult:
        """Take jobs in processing from their workers and queue them again, available now, without using an attempt.

        The result of the old worker is dropped. A job is superseded if another job of the same fingerprint is queued.
        """
        return self._each("release", which, by, self._do_release)

    def cancel(self, which: Filter | Iterable[int], *, by: str = "") -> CommandResult:
        """Cancel jobs that are queued or in processing. The result of a worker that still has the job is dropped."""
        return self._each("cancel", which, by, self._do_cancel)

    def delete(self, which: Filter | Iterable[int], *, by: str = "") -> CommandResult:
        """Delete jobs of any state except `processing`, and their attempts. The records of their entities are kept."""
        return self._each("delete", which, by, self._do_delete)

    def count(self, which: Filter | Iterable[int]) -> dict[str, int]:
        """Count by state the jobs that a command would check."""
        wanted = _filter(which)
        statement = select(job.c.state, func.count().label("n")).where(*wanted.conditions(self._db.dialect)).group_by(job.c.state)
        found: Counter[str] = Counter()
        with self._db.read() as connection:
            if wanted.ids is None:
                return {row.state: row.n for row in connection.execute(statement)}
            for ids in _chunks(wanted.ids):
                found.update({row.state: row.n for row in connection.execute(statement.where(self._is_named), self._bound(ids))})
        return dict(found)

    def _each(self, command: str, which: Filter | Iterable[int], by: str, work: _Work) -> CommandResult:
        wanted = _filter(which)
        done = superseded = 0
        refused: list[Refused] = []
        refusals: Counter[tuple[str, str]] = Counter()
        for ids in self._batches(wanted):
            moved, left = self._batch(command, wanted, ids, by, work)
            done += len(moved)
            superseded += sum(state == states.SUPERSEDED for state in moved.values())
            refused += left[: LISTED - len(refused)]
            refusals.update((one.state, one.reason) for one in left)
        counted = tuple((state, reason, count) for (state, reason), count in sorted(refusals.items()))
        return CommandResult(done, tuple(sorted(refused)), counted, superseded)

    @retry_on_conflict
    def _batch(
        self, command: str, wanted: Filter, ids: Sequence[int], by: str, work: _Work
    ) -> tuple[dict[int, str], list[Refused]]:
        """Run one transaction; return the new states by job id, and the refusals."""
        with self._db.write() as connection:
            rows = [_Row(*row) for row in connection.execute(self._lock_rows, self._bound(ids))]
            left = [Refused(row.id, row.state, reason) for row in rows if (reason := _reason(command, wanted, row)) is not None]
            if wanted.names_ids_only:
                left += [Refused(one, UNKNOWN, "no such job") for one in sorted(set(ids) - {row.id for row in rows})]
            kept = set(ids) - {one.id for one in left}
            rows = [row for row in rows if row.id in kept]
            moved = work(connection, rows, by) if rows else {}
            if self._db.dialect == "postgresql" and states.QUEUED in moved.values():
                for queue in sorted({row.queue for row in rows if moved.get(row.id) == states.QUEUED}):
                    connection.execute(self._notify, {"b_queue": queue})
        return moved, left

    def _batches(self, wanted: Filter) -> Iterator[list[int]]:
        """Yield the matching ids, the newest first, so that of failed jobs of one fingerprint the newest is queued."""
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
            connection.execute(self._clear_poison, self._entities.bind(entities))
        return moved

    def _do_release(self, connection: Connection, rows: list[_Row], by: str) -> dict[int, str]:
        return self._take_back(connection, rows, states.QUEUED, "released", by)

    def _do_cancel(self, connection: Connection, rows: list[_Row], by: str) -> dict[int, str]:
        moved: dict[int, str] = {}
        waiting = [row.id for row in rows if row.state == states.QUEUED]
        working = [row for row in rows if row.state == states.PROCESSING]
        if waiting:
            values = {**self._bound(waiting), "b_message": _said("cancelled", by)}
            moved.update((row.id, row.state) for row in connection.execute(self._cancel, values))
        if working:
            moved |= self._take_back(connection, working, states.CANCELLED, "cancelled", by)
        return moved

    def _take_back(self, connection: Connection, rows: list[_Row], state: str, outcome: str, by: str) -> dict[int, str]:
        message = _said(outcome, by)
        changes = [
            Transition(
                row.id,
                row.claim_no,
                row.fingerprint,
                state=state,
                outcome=outcome,
                message=message,
                phase=row.phase,
            )
            for row in rows
        ]
        moved = self._transitions.apply(connection, changes)
        connection.execute(self._fence, self._bound(moved))
        return moved

    def _do_delete(self, connection: Connection, rows: list[_Row], _by: str) -> dict[int, str]:
        ids = self._bound(row.id for row in rows)
        connection.execute(self._delete_attempts, ids)
        return dict.fromkeys(connection.execute(self._delete, ids).scalars(), "deleted")


def _filter(which: Filter | Iterable[int]) -> Filter:
    return which if isinstance(which, Filter) else Filter(ids=tuple(which))


def _chunks(ids: Iterable[int]) -> Iterator[list[int]]:
    left = iter(sorted(set(ids), reverse=True))
    while chunk := list(islice(left, BATCH)):
        yield chunk


def _reason(command: str, wanted: Filter, row: _Row) -> str | None:
    if wanted.state is not None and row.state != wanted.state:
        return f"no longer {wanted.state}"  # it changed after the ids were read
    return refusal(command, row.state)


def _other(newest: int | None, own: int) -> int | None:
    return None if newest == own else newest


def _said(outcome: str, by: str) -> str:
    return f"{outcome} by {by}" if by else f"{outcome} by hand"
