"""Moves claimed jobs out of `processing` and writes their attempts, on condition that the claim still holds (the fence).

Finish, release, rescue and the commands of people all end here.
"""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Update,
    and_,
    bindparam,
    case,
    func,
    insert,
    null,
    select,
    update,
)
from sqlalchemy.dialects import postgresql

from jobs.db.database import Database
from jobs.db.json_rows import JsonRows, SingleRow
from jobs.db.prepared_statements import PreparedStatement
from jobs.finishing.transition import Transition
from jobs.schema.job_tables import attempt, job, unreported_failure
from jobs.schema.states import FAILURE, PROCESSING_LITERAL, QUEUED, QUEUED_LITERAL, SUCCESS, SUPERSEDED

#: What an attempt says beyond what the job's row knows.
_TRIED = {
    "outcome": "word", "error": "text", "traceback": "text", "phase": "word", "exchanges": "json", "began": "seconds",
}  # fmt: skip
_ENDED = {"id": "id", "claim_no": "int", "state": "word", "message": "text", "rescues": "int", **_TRIED}
_RETURNED = {
    "id": "id", "claim_no": "int", "message": "text", "delay": "seconds", "until": "time", "attempts": "int",
    "retries": "int", "snoozes": "int", "rescues": "int", "to_phase": "word", **_TRIED,
}  # fmt: skip
_ATTEMPT = [
    attempt.c.job_id, attempt.c.claim_no, attempt.c.worker, attempt.c.started_at, attempt.c.ended_at, attempt.c.outcome,
    attempt.c.error, attempt.c.traceback, attempt.c.phase, attempt.c.exchanges,
]  # fmt: skip


LONG_AGO = -1e8
"""Seconds: of an attempt of which only the time of its claim is known."""


def later_of(one: Any, other: Any) -> Any:
    """Return the later one of two times, or the second one where the first is NULL."""
    return case((one > other, one), else_=other)


def is_held(claim: JsonRows | SingleRow) -> ColumnElement[bool]:
    """The fence: the row is still in processing under this very claim.

    The state alone would let a worker whose lease has expired overwrite what the next owner writes. Every write to a claimed
    job carries this condition; tests/jobs/finishing/test_fence_mutation.py removes it and expects a test to fail.
    """
    # As an expression the state matches no partial index, so that the primary key is used. With job_lease PostgreSQL read an
    # entry for each job claimed since the last vacuum: 1.6 ms in place of 0.7 for 25 jobs of 24,000.
    return and_(job.c.id == claim.id, job.c.state.concat("") == PROCESSING_LITERAL, job.c.claim_no == claim.claim_no)


class FencedTransitions:
    """Carries out batches of transitions inside a transaction of the caller."""

    def __init__(self, db: Database) -> None:
        self._now = db.now
        # On PostgreSQL the statement that updates the jobs writes their attempts too: 1.1 ms in place of 1.7 for 25 jobs.
        # SQLite has no data-modifying CTE; there a second statement writes them.
        self._in_one = db.dialect == "postgresql"
        self._ended, self._returned = JsonRows(db, _ENDED), JsonRows(db, _RETURNED)
        self._end = self._moving(self._ending(self._ended, bindparam("b_attempts")), self._ended)
        self._back = self._moving(self._giving_back(self._returned), self._returned)
        self._tries = tries = JsonRows(db, {"id": "id", "claim_no": "int", **_TRIED})
        self._try = self._trying(tries, tries.table.join(job, job.c.id == tries.id))
        # The commonest batch is one job that ends. For that one SQLite needs no JSON and no RETURNING: 12 µs in place of 37.
        self._one = one = SingleRow(db, {**_ENDED, "attempts": "int"})
        self._end_one = PreparedStatement(self._ending(one, one.attempts))
        self._try_one = self._trying(one, job, job.c.id == one.id)
        # Notices are made from these rows, also when this process dies in the next moment.
        self._lost = lost = JsonRows(db, {"id": "id"})
        failed = select(job.c.client, job.c.type, job.c.id, job.c.key, job.c.message, self._now)
        columns = ["client", "type", "job_id", "key", "message", "at"]
        self._report = PreparedStatement(
            insert(unreported_failure).from_select(columns, failed.join_from(lost.table, job, job.c.id == lost.id))
        )

    def _ending(self, ended: JsonRows | SingleRow, attempts: ColumnElement[int]) -> Update:
        return (
            update(job)
            .where(is_held(ended))
            .values(
                state=ended.state, message=ended.message, finished_at=self._now, lease_until=null(),
                attempts=job.c.attempts + attempts, rescues=job.c.rescues + ended.rescues,
            )
        )  # fmt: skip

    def _giving_back(self, back: JsonRows) -> Update:
        # A job that goes back while its twin is queued gives way to it: the twin has the newer information.
        other = job.alias("twin")
        is_twin = and_(
            other.c.state == QUEUED_LITERAL,
            other.c.queue == job.c.queue,
            other.c.fingerprint == job.c.fingerprint,
            other.c.id != job.c.id,
        )
        twin = select(func.max(other.c.id)).where(is_twin).scalar_subquery()
        return (
            update(job)
            .where(is_held(back))
            .values(
                state=case((twin.is_not(None), SUPERSEDED), else_=QUEUED),
                superseded_by=twin,
                message=back.message,
                available_at=later_of(back.until, back.delay),
                finished_at=case((twin.is_not(None), self._now), else_=None),
                lease_until=null(),
                phase=func.coalesce(back.to_phase, job.c.phase),
                # A phase begins without the checkpoint of the one before.
                checkpoint=case((back.to_phase.is_(None), job.c.checkpoint), else_=None),
                attempts=job.c.attempts + back.attempts,
                retries=job.c.retries + back.retries,
                snoozes=job.c.snoozes + back.snoozes,
                rescues=job.c.rescues + back.rescues,
            )
        )

    def _trying(self, tries: JsonRows | SingleRow, source: FromClause, *where: ColumnElement[bool]) -> PreparedStatement:
        found = select(
            job.c.id, tries.claim_no, job.c.worker, later_of(tries.began, job.c.started_at), self._now, tries.outcome,
            tries.error, tries.traceback, tries.phase, tries.exchanges,
        ).select_from(source)  # fmt: skip
        return PreparedStatement(insert(attempt).from_select(_ATTEMPT, found.where(*where)))

    def _moving(self, change: Update, rows: JsonRows) -> PreparedStatement:
        """Return the statement that updates the jobs, on PostgreSQL writes their attempts too, and returns ids and new states."""
        if not self._in_one:
            return PreparedStatement(change.returning(job.c.id, job.c.state))
        moved = change.returning(
            job.c.id, job.c.state, job.c.claim_no, job.c.worker, later_of(rows.began, job.c.started_at).label("began_at"),
            rows.outcome, rows.error, rows.traceback, rows.phase.label("tried_phase"), rows.exchanges,
        ).cte("moved")  # fmt: skip
        of = moved.c
        tried = insert(attempt).from_select(
            _ATTEMPT,
            select(
                of.id,
                of.claim_no,
                of.worker,
                of.began_at,
                self._now,
                of.outcome,
                of.error,
                of.traceback,
                of.tried_phase,
                of.exchanges.cast(postgresql.JSON),
            ),
        )
        return PreparedStatement(select(of.id, of.state).add_cte(tried.cte("tried")))

    def is_single(self, transitions: Sequence[Transition]) -> bool:
        """Tell whether `apply` is one statement for these transitions, see `Database.write`."""
        if not self._in_one or any(change.state == FAILURE for change in transitions):
            return False
        return len({QUEUED if change.state == QUEUED else change.attempts for change in transitions}) == 1

    def apply(self, connection: Connection, transitions: Sequence[Transition]) -> dict[int, str]:
        """Carry out the transitions whose claims still hold, and write their attempts.

        Returns:
            The new state of each job that was changed; the ids that are missing had lost their claim.
        """
        if not self._in_one and len(transitions) == 1 and transitions[0].state != QUEUED:
            return self._apply_one(connection, transitions[0])
        # Rows are locked in the order of ids everywhere, so that a finish and a renewal rarely wait for each other.
        transitions = sorted(transitions, key=lambda change: change.job_id)
        states: dict[int, str] = {}
        for counts in (0, 1):
            ended = [change for change in transitions if change.state != QUEUED and change.attempts == counts]
            if ended:
                rows = [_end_row(change) for change in ended]
                states.update(self._end.rows(connection, {**self._ended.bind(rows), "b_attempts": counts}))
        returned = [change for change in transitions if change.state == QUEUED]
        for group in _rounds(returned):
            states.update(self._back.rows(connection, self._returned.bind(map(_back_row, group))))
        if states and not self._in_one:
            tries = [(change.job_id, change.claim_no, *_tried(change)) for change in transitions if change.job_id in states]
            self._try.count(connection, self._tries.bind(tries))
        failed = [(job_id,) for job_id, state in states.items() if state == FAILURE]
        if failed:
            self._report.count(connection, self._lost.bind(failed))
        return states

    def _apply_one(self, connection: Connection, change: Transition) -> dict[int, str]:
        values = self._one.bind((*_end_row(change), change.attempts))
        if not self._end_one.count(connection, values):
            return {}
        self._try_one.count(connection, values)
        if change.state == FAILURE:
            self._report.count(connection, self._lost.bind([(change.job_id,)]))
        return {change.job_id: change.state}


def _end_row(change: Transition) -> tuple[Any, ...]:
    return change.job_id, change.claim_no, change.state, change.message, change.rescues, *_tried(change)


def _tried(change: Transition) -> tuple[str, str | None, str | None, str, str | None, float]:
    error = None if change.state == SUCCESS else change.message or None
    began = LONG_AGO if change.began is None else change.began - time.monotonic()
    return change.outcome, error, change.traceback, change.phase, change.exchanges, began


def _back_row(change: Transition) -> tuple[Any, ...]:
    return (
        change.job_id, change.claim_no, change.message, change.delay, change.until, change.attempts, change.retries,
        change.snoozes, change.rescues, change.to_phase, *_tried(change),
    )  # fmt: skip


def _rounds(transitions: Sequence[Transition]) -> list[list[Transition]]:
    """Group transitions so that no two of one fingerprint go back in one statement, the newest in the first group.

    The unique index refuses both in one statement; one after the other, the older finds its twin and gives way. The newest
    cannot be chosen beforehand: its claim may be lost, and then the next one goes back in its place.
    """
    rounds: list[list[Transition]] = []
    seen: Counter[str] = Counter()
    for change in reversed(transitions):
        number = 0
        if change.fingerprint is not None:
            number = seen[change.fingerprint]
            seen[change.fingerprint] += 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(change)
    return [group[::-1] for group in rounds]
