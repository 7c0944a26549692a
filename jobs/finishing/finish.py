"""Finishes a batch of jobs: saves, ledger and job states in one fenced transaction."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, select
from sqlmodel import Session

from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.db.json_codec import beyond_jsonb
from jobs.db.json_rows import JsonRows
from jobs.db.prepared_statements import PreparedStatement
from jobs.finishing.batch_rows import BatchRows
from jobs.finishing.fence import FencedTransitions, is_held
from jobs.finishing.transition import overtaken, transitions_of
from jobs.job import JobResult
from jobs.listing.etags import StoredValidators
from jobs.listing.record_upsert import KnownEntity, Ledger, overtaken_ids
from jobs.outcome import Failure, Gone, Success, Unchanged
from jobs.schema.job_tables import job
from jobs.schema.states import LOST
from jobs.typed_tables.table_writer import RowsRefused


class Finishes:
    """Finishes of one database."""

    def __init__(self, db: Database, transitions: FencedTransitions) -> None:
        self._db = db
        self._transitions = transitions
        self._ledger = Ledger(db)
        self._rows = BatchRows(db)
        self._validators = StoredValidators(db)
        self._claims = claims = JsonRows(db, {"id": "id", "claim_no": "int"})
        self._held = PreparedStatement(select(job.c.id).join_from(claims.table, job, is_held(claims)).with_for_update(of=job))

    @retry_on_conflict
    def finish(self, dones: Sequence[JobResult]) -> list[JobResult]:
        """Finish jobs in one transaction: what is saved, what the ledger says and the job's state commit together.

        A job whose claim another worker has by now is `lost`: none of its writes remain.

        Args:
            dones: worked jobs; see `JobResult`.

        Returns:
            For each, in order, a `JobResult` with its final verdict and `state`, without content and functions.
        """
        for done in dones:
            if _needs_more_than_the_job(done):
                try:
                    return self._finish(dones)
                except RowsRefused:
                    return self._finish(dones, alone=True)
        transitions = transitions_of(dones)
        with self._db.write(single=self._transitions.is_single(transitions), prepared=True) as connection:
            states = self._transitions.apply(connection, transitions)
        return _settled(dones, states)

    def _finish(self, dones: Sequence[JobResult], *, alone: bool = False) -> list[JobResult]:
        with self._db.write(prepared=not any(done.save for done in dones)) as connection:
            return self.finish_in(connection, dones, alone=alone)

    def finish_in(self, connection: Connection, dones: Sequence[JobResult], *, alone: bool = False) -> list[JobResult]:
        """Finish jobs inside a transaction of the caller, who must roll it back if a job with a session of its own is lost.

        Args:
            connection: in this transaction.
            dones: worked jobs.
            alone: write the rows of each entity by themselves, so that those that the database refuses fail alone.

        Raises:
            RowsRefused: the database refuses the rows of one of the entities; nothing of the transaction may be kept.
        """
        held_ids = self._still_held(connection, dones, alone=alone)
        kept = [done for done in dones if done.job.id in held_ids]
        known = self._ledger.known(connection, kept)
        late = overtaken_ids(kept, known) if known else set()
        mine = held_ids - late
        judged = [self._save(connection, done, known) if done.job.id in mine else done for done in dones]
        if alone:
            judged = [self._rows.save_alone(connection, done, known) if done.job.id in mine else done for done in judged]
        transitions = transitions_of([done for done in judged if done.job.id in held_ids and done.job.id not in late])
        transitions += [overtaken(done.job) for done in judged if done.job.id in late]
        states = self._transitions.apply(connection, transitions)
        written = [done for done in judged if done.job.id in states and done.job.id not in late]
        if not alone:
            # Behind the fence: only those whose claims still hold, and without a statement that asks which.
            self._rows.save(connection, written, known)
        self._ledger.write(connection, written)
        self._validators.replace(connection, written)
        return _settled(judged, states)

    def _still_held(self, connection: Connection, dones: Sequence[JobResult], *, alone: bool) -> set[int]:
        if not alone and not any(done.save for done in dones):
            # Nothing is written before the transitions, whose own fence then decides.
            return {done.job.id for done in dones}
        claims = [(done.job.id, done.job.claim_no) for done in dones]
        return {row[0] for row in self._held.rows(connection, self._claims.bind(claims))}

    def _save(self, connection: Connection, done: JobResult, known: Mapping[tuple[str, str], KnownEntity]) -> JobResult:
        """Run `save` where it is due, and return the job with its final outcome.

        Unchanged content is not saved; a refused deletion and a failing `save` are failures.
        """
        if isinstance(done.verdict.outcome, Success) and done.content is not None and not done.force:
            before = known.get((done.job.lane.type, done.job.key or ""))
            if before is not None and before.content_hash is not None and before.content_hash == done.content.content_hash:
                return done._replace(verdict=done.verdict._replace(outcome=Unchanged()))
        if isinstance(done.verdict.outcome, Gone) and done.may_go is not None:
            before = known.get((done.job.lane.type, done.job.key or ""))
            refused = done.may_go() if before is not None and before.is_live else None
            if refused is not None:
                return done._replace(verdict=done.verdict._replace(outcome=Failure(refused, retry=False)))
        if (digits := self._unstorable(done)) is not None:
            outcome = Failure(f"holds the number {digits}, which PostgreSQL's jsonb cannot keep", retry=False)
            return done._replace(verdict=done.verdict._replace(outcome=outcome))
        if done.save is not None and isinstance(done.verdict.outcome, Success | Gone):
            with Session(bind=connection, join_transaction_mode="create_savepoint") as session:
                verdict = done.save(session)
                if isinstance(verdict.outcome, Success | Gone):
                    session.commit()
                else:
                    session.rollback()
            return done._replace(verdict=verdict)
        return done

    def _unstorable(self, done: JobResult) -> str | None:
        """Return a number of a record that would fail the whole batch."""
        if done.content is None or done.content.data is None or self._db.dialect != "postgresql":
            return None
        return beyond_jsonb(done.content.data)


def _settled(dones: Sequence[JobResult], states: Mapping[int, str]) -> list[JobResult]:
    return [JobResult(done.job, done.verdict, done.retry, state=states.get(done.job.id, LOST)) for done in dones]


def _needs_more_than_the_job(done: JobResult) -> bool:
    """Tell whether something else may have to be read or written than the job and its attempt."""
    if done.save is not None:
        return True
    return done.job.key is not None and (done.content is not None or isinstance(done.verdict.outcome, Gone | Failure))
