"""The one statement that takes jobs out of `processing`, and its fence. Finish, release and rescue all end here."""

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
    literal_column,
    null,
    select,
    update,
)
from sqlalchemy.dialects import postgresql

from jobs import models
from jobs.database import Database
from jobs.job import Move
from jobs.models import attempt, job, news
from jobs.prepared import Prepared
from jobs.rows import One, Rows

QUEUED: ColumnElement[str] = literal_column("'queued'")
PROCESSING: ColumnElement[str] = literal_column("'processing'")


#: What an attempt says beyond what the job's row knows.
_TRIED = {"outcome": "word", "error": "text", "traceback": "text", "phase": "word", "exchanges": "json"}
_ENDED = {"id": "id", "claim_no": "int", "state": "word", "message": "text", "rescues": "int", **_TRIED}
_RETURNED = {
    "id": "id", "claim_no": "int", "message": "text", "delay": "seconds", "until": "time", "attempts": "int",
    "retries": "int", "snoozes": "int", "rescues": "int", "to_phase": "word", **_TRIED,
}  # fmt: skip
_ATTEMPT = [
    attempt.c.job_id, attempt.c.claim_no, attempt.c.worker, attempt.c.started_at, attempt.c.ended_at, attempt.c.outcome,
    attempt.c.error, attempt.c.traceback, attempt.c.phase, attempt.c.exchanges,
]  # fmt: skip


def held(claim: Rows | One) -> ColumnElement[bool]:
    """The fence (M1): the row is still processing under this very claim.

    State alone would let a worker that slept through its lease write over the next owner. Every write to a claimed job
    carries this condition; tests/jobs/test_mutation.py takes it away and watches the zombie test fail.
    """
    # As an expression the state fits no partial index: PostgreSQL walked through job_lease, with an entry for each job that was
    # ever claimed since the last vacuum, to find rows whose primary key it had. 1.6 ms in place of 0.7 for 25 jobs of 24,000.
    return and_(job.c.id == claim.id, job.c.state.concat("") == PROCESSING, job.c.claim_no == claim.claim_no)


class Settlement:
    """Settles batches of moves inside a transaction of the caller."""

    def __init__(self, db: Database) -> None:
        self._now = db.now
        # On PostgreSQL the attempts are written by the very statement that moves the jobs: 1.1 ms in place of 1.7 for 25 jobs.
        # SQLite has no data-modifying CTE; there a second statement writes them.
        self._in_one = db.dialect == "postgresql"
        self._ended, self._returned = Rows(db, _ENDED), Rows(db, _RETURNED)
        self._end = self._moving(self._ending(self._ended, bindparam("b_attempts")), self._ended)
        self._back = self._moving(self._giving_back(self._returned), self._returned)
        self._tries = tries = Rows(db, {"id": "id", "claim_no": "int", **_TRIED})
        self._try = self._trying(tries, tries.table.join(job, job.c.id == tries.id))
        # The commonest batch is one job that ends. For that one SQLite needs no JSON and no RETURNING: 12 µs in place of 37.
        self._one = one = One(db, {**_ENDED, "attempts": "int"})
        self._end_one = Prepared(self._ending(one, one.attempts))
        self._try_one = self._trying(one, job, job.c.id == one.id)
        # Whoever tells people of failures finds them here, also when this process dies in the next moment (issue 5, 8).
        self._lost = lost = Rows(db, {"id": "id"})
        failed = select(job.c.client, job.c.type, job.c.id, job.c.key, job.c.message, self._now)
        told = ["client", "type", "job_id", "key", "message", "at"]
        self._report = Prepared(insert(news).from_select(told, failed.join_from(lost.table, job, job.c.id == lost.id)))

    def _ending(self, ended: Rows | One, attempts: ColumnElement[int]) -> Update:
        return (
            update(job)
            .where(held(ended))
            .values(
                state=ended.state, message=ended.message, finished_at=self._now, lease_until=null(),
                attempts=job.c.attempts + attempts, rescues=job.c.rescues + ended.rescues,
            )
        )  # fmt: skip

    def _giving_back(self, back: Rows) -> Update:
        # A job that must go back meets a queued twin: the newer information wins, in this same statement (M2).
        other = job.alias("twin")
        is_twin = and_(
            other.c.state == QUEUED,
            other.c.queue == job.c.queue,
            other.c.fingerprint == job.c.fingerprint,
            other.c.id != job.c.id,
        )
        twin = select(func.max(other.c.id)).where(is_twin).scalar_subquery()
        return (
            update(job)
            .where(held(back))
            .values(
                state=case((twin.is_not(None), models.SUPERSEDED), else_=models.QUEUED),
                superseded_by=twin,
                message=back.message,
                available_at=func.coalesce(back.until, back.delay),
                finished_at=case((twin.is_not(None), self._now), else_=None),
                lease_until=null(),
                phase=func.coalesce(back.to_phase, job.c.phase),
                # A phase begins without the notes of the one before.
                checkpoint=case((back.to_phase.is_(None), job.c.checkpoint), else_=None),
                attempts=job.c.attempts + back.attempts,
                retries=job.c.retries + back.retries,
                snoozes=job.c.snoozes + back.snoozes,
                rescues=job.c.rescues + back.rescues,
            )
        )

    def _trying(self, tries: Rows | One, source: FromClause, *where: ColumnElement[bool]) -> Prepared:
        found = select(
            job.c.id, tries.claim_no, job.c.worker, job.c.started_at, self._now, tries.outcome, tries.error, tries.traceback,
            tries.phase, tries.exchanges,
        ).select_from(source)  # fmt: skip
        return Prepared(insert(attempt).from_select(_ATTEMPT, found.where(*where)))

    def _moving(self, move: Update, rows: Rows) -> Prepared:
        """Return the statement that makes the move, and the attempts where it can, and returns ids and new states."""
        if not self._in_one:
            return Prepared(move.returning(job.c.id, job.c.state))
        moved = move.returning(
            job.c.id, job.c.state, job.c.claim_no, job.c.worker, job.c.started_at, rows.outcome, rows.error, rows.traceback,
            rows.phase.label("tried_phase"), rows.exchanges,
        ).cte("moved")  # fmt: skip
        of = moved.c
        tried = insert(attempt).from_select(
            _ATTEMPT,
            select(
                of.id,
                of.claim_no,
                of.worker,
                of.started_at,
                self._now,
                of.outcome,
                of.error,
                of.traceback,
                of.tried_phase,
                of.exchanges.cast(postgresql.JSON),
            ),
        )
        return Prepared(select(of.id, of.state).add_cte(tried.cte("tried")))

    def is_single(self, moves: Sequence[Move]) -> bool:
        """Tell whether `settle` is one statement for these moves, see `Database.write`."""
        if not self._in_one or any(move.state == models.FAILURE for move in moves):
            return False
        return len({models.QUEUED if move.state == models.QUEUED else move.attempts for move in moves}) == 1

    def settle(self, connection: Connection, moves: Sequence[Move]) -> dict[int, str]:
        """Carry out the moves whose claims still hold, and write their attempts.

        Returns:
            The new state of each job that was moved; the ids that are missing had lost their claim.
        """
        if not self._in_one and len(moves) == 1 and moves[0].state != models.QUEUED:
            return self._settle_one(connection, moves[0])
        # Everybody locks in the order of ids, so that a finish and a renewal of the same rows rarely wait for each other.
        moves = sorted(moves, key=lambda move: move.job_id)
        states: dict[int, str] = {}
        for counts in (0, 1):
            ended = [move for move in moves if move.state != models.QUEUED and move.attempts == counts]
            if ended:
                rows = [_end_row(move) for move in ended]
                states.update(self._end.rows(connection, {**self._ended.bind(rows), "b_attempts": counts}))
        returned = [move for move in moves if move.state == models.QUEUED]
        for round_ in _rounds(returned):
            states.update(self._back.rows(connection, self._returned.bind(map(_back_row, round_))))
        if states and not self._in_one:
            tries = [(move.job_id, move.claim_no, *_tried(move)) for move in moves if move.job_id in states]
            self._try.count(connection, self._tries.bind(tries))
        failed = [(job_id,) for job_id, state in states.items() if state == models.FAILURE]
        if failed:
            self._report.count(connection, self._lost.bind(failed))
        return states

    def _settle_one(self, connection: Connection, move: Move) -> dict[int, str]:
        values = self._one.bind((*_end_row(move), move.attempts))
        if not self._end_one.count(connection, values):
            return {}
        self._try_one.count(connection, values)
        if move.state == models.FAILURE:
            self._report.count(connection, self._lost.bind([(move.job_id,)]))
        return {move.job_id: move.state}


def _end_row(move: Move) -> tuple[Any, ...]:
    return move.job_id, move.claim_no, move.state, move.message, move.rescues, *_tried(move)


def _tried(move: Move) -> tuple[str, str | None, str | None, str, str | None]:
    error = None if move.state == models.SUCCESS else move.message or None
    return move.outcome, error, move.traceback, move.phase, move.exchanges


def _back_row(move: Move) -> tuple[Any, ...]:
    return (
        move.job_id, move.claim_no, move.message, move.delay, move.until, move.attempts, move.retries, move.snoozes,
        move.rescues, move.to_phase, *_tried(move),
    )  # fmt: skip


def _rounds(moves: Sequence[Move]) -> list[list[Move]]:
    """Part moves so that no two of one content go back in one statement, the newest first (River's rule).

    The unique index would refuse both at once; one after the other, the older finds its twin and gives way. Nobody can say
    beforehand that the newest will be there: its claim may be lost, and then the next one goes back in its place.
    """
    rounds: list[list[Move]] = []
    seen: Counter[str] = Counter()
    for move in reversed(moves):
        number = 0
        if move.fingerprint is not None:
            number = seen[move.fingerprint]
            seen[move.fingerprint] += 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(move)
    return [round_[::-1] for round_ in rounds]
