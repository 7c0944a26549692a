"""Finishing a batch of jobs: saves, ledger and job states in one fenced transaction (law 3)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, case, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session

from jobs import transition
from jobs.contention import again
from jobs.database import Database
from jobs.job import Done, Move, Settled
from jobs.models import job, record
from jobs.outcome import Failure, Gone, Success, Unchanged
from jobs.prepared import Prepared
from jobs.rows import Rows
from jobs.settle import Settlement, held
from jobs.validator import Validators


class _Known(NamedTuple):
    """What the ledger has of an entity; the hash only of one that is in sync."""

    content_hash: str | None
    #: The job that wrote it last: the listing that asked for it, and its id.
    writer: tuple[int, int]
    is_live: bool


class Finishes:
    """Finishes of one database."""

    def __init__(self, db: Database, settlement: Settlement) -> None:
        self._db = db
        self._settlement = settlement
        self._validators = Validators(db)
        self._claims = claims = Rows(db, {"id": "id", "claim_no": "int"})
        self._held = Prepared(select(job.c.id).join_from(claims.table, job, held(claims)).with_for_update(of=job))
        self._keys = keys = Rows(db, {"sync": "text", "key": "text"})
        self._known = Prepared(
            select(
                record.c.sync, record.c.key, record.c.content_hash, record.c.job_generation, record.c.job_id,
                and_(record.c.deleted_at.is_(None), record.c.synced_at.is_not(None)).label("in_sync"),
                record.c.deleted_at.is_(None).label("is_live"),
            )
            .join_from(keys.table, record, and_(record.c.sync == keys.sync, record.c.key == keys.key))
            .with_for_update(of=record)
        )  # fmt: skip
        self._saved = Rows(
            db,
            {
                "sync": "text",
                "key": "text",
                "version": "text",
                "content_hash": "text",
                "data": "json",
                "generation": "int",
                "job": "id",
            },
        )
        self._save = Prepared(self._save_statement())
        self._seen = seen = Rows(db, {"sync": "text", "key": "text", "version": "text", "generation": "int", "job": "id"})
        self._touch = Prepared(
            update(record)
            .where(record.c.sync == seen.sync, record.c.key == seen.key)
            .values(
                version=seen.version, generation=_greatest(record.c.generation, seen.generation), synced_at=db.now,
                job_id=seen.job, job_generation=seen.generation, last_error=None, last_error_at=None, is_poison=False,
            )
        )  # fmt: skip
        self._gone = gone = Rows(db, {"sync": "text", "key": "text", "generation": "int", "job": "id"})
        self._delete = Prepared(
            update(record)
            .where(record.c.sync == gone.sync, record.c.key == gone.key, record.c.deleted_at.is_(None))
            .values(deleted_at=db.now, synced_at=db.now, job_id=gone.job, job_generation=gone.generation)
        )
        self._failed = failed = Rows(db, {"sync": "text", "key": "text", "error": "text", "generation": "int", "job": "id"})
        self._blame = Prepared(
            update(record)
            .where(record.c.sync == failed.sync, record.c.key == failed.key, _is_not_after(failed.generation, failed.job))
            .values(last_error=failed.error, last_error_at=db.now)
        )

    def _save_statement(self) -> Any:
        db, rows = self._db, self._saved
        data = rows.data.cast(postgresql.JSON) if db.dialect == "postgresql" else rows.data
        source = select(
            rows.sync, rows.key, rows.version, rows.content_hash, data, rows.generation, rows.job, rows.generation,
            db.now, db.now, db.now,
        ).where(rows.key.is_not(None))  # fmt: skip
        # SQLite cannot parse ON CONFLICT behind a SELECT that has no WHERE.
        make = postgresql.insert(record) if db.dialect == "postgresql" else sqlite.insert(record)
        statement = make.from_select(
            [
                "sync", "key", "version", "content_hash", "data", "generation", "job_id", "job_generation",
                "first_seen_at", "changed_at", "synced_at",
            ],
            source,
        )  # fmt: skip
        new = statement.excluded
        same = and_(record.c.content_hash.is_not_distinct_from(new.content_hash), record.c.deleted_at.is_(None))
        return statement.on_conflict_do_update(
            index_elements=["sync", "key"],
            set_={
                "version": new.version,
                "content_hash": new.content_hash,
                "data": new.data,
                "generation": _greatest(record.c.generation, new.generation),
                "changed_at": case((same, record.c.changed_at), else_=new.changed_at),
                "synced_at": new.synced_at,
                "deleted_at": None,
                "job_id": new.job_id,
                "job_generation": new.job_generation,
                "last_error": None,
                "last_error_at": None,
                "is_poison": False,
            },
            # Two finishes of one new entity at once: neither saw the other's row, the later job's stays.
            where=_is_not_after(new.job_generation, new.job_id),
        )

    @again
    def finish(self, dones: Sequence[Done]) -> list[Settled]:
        """Finish jobs in one transaction: what is saved, what the ledger says and the job's state commit together.

        A job whose claim is another's by now is `lost`: none of its writes remain.

        Args:
            dones: worked jobs; see `Done`.

        Returns:
            One `Settled` for each, in order.
        """
        for done in dones:
            if _is_more_than_a_job(done):
                with self._db.write(prepared=not any(done.save for done in dones)) as connection:
                    return self.within(connection, dones)
        moves = [_move(done) for done in dones]
        with self._db.write(single=self._settlement.is_single(moves), prepared=True) as connection:
            states = self._settlement.settle(connection, moves)
        return _settled(dones, states)

    def within(self, connection: Connection, dones: Sequence[Done]) -> list[Settled]:
        """Finish jobs inside a transaction of the caller, who commits. A lost one must not be: what it wrote is in there too."""
        held_ids = self._still_held(connection, dones)
        kept = [done for done in dones if done.job.id in held_ids]
        known = self._known_records(connection, kept)
        late = {done.job.id for done in kept if _is_late(done, known)}
        judged = [self._apply(connection, done, known) if done.job.id in held_ids - late else done for done in dones]
        moves = [
            transition.overtaken(done.job) if done.job.id in late else _move(done) for done in judged if done.job.id in held_ids
        ]
        states = self._settlement.settle(connection, moves)
        self._write_ledger(connection, [done for done in judged if done.job.id in states and done.job.id not in late])
        return _settled(judged, states)

    def _still_held(self, connection: Connection, dones: Sequence[Done]) -> set[int]:
        if not any(done.save for done in dones):
            # Nothing is written before the settlement, whose own fence then decides.
            return {done.job.id for done in dones}
        claims = [(done.job.id, done.job.claim_no) for done in dones]
        return {row[0] for row in self._held.rows(connection, self._claims.bind(claims))}

    def _known_records(self, connection: Connection, dones: Sequence[Done]) -> dict[tuple[str, str], _Known]:
        keys = {
            (done.job.lane.type, done.job.key)
            for done in dones
            if done.job.key is not None and isinstance(done.verdict.outcome, Success | Unchanged | Gone) and _writes(done)
        }
        if not keys:
            return {}
        rows = self._known.rows(connection, self._keys.bind(sorted(keys)))
        return {
            (sync, key): _Known(content_hash if in_sync else None, (generation, job_id or 0), is_live)
            for sync, key, content_hash, generation, job_id, in_sync, is_live in rows
        }

    def _apply(self, connection: Connection, done: Done, known: dict[tuple[str, str], _Known]) -> Done:
        """Settle what the outcome is: unchanged content is not saved, a failing save is a failure."""
        if isinstance(done.verdict.outcome, Success) and done.content is not None and not done.force:
            before = known.get((done.job.lane.type, done.job.key or ""))
            if before is not None and before.content_hash is not None and before.content_hash == done.content.content_hash:
                return done._replace(verdict=done.verdict._replace(outcome=Unchanged()))
        if isinstance(done.verdict.outcome, Gone) and done.may_go is not None:
            before = known.get((done.job.lane.type, done.job.key or ""))
            refused = done.may_go() if before is not None and before.is_live else None
            if refused is not None:
                return done._replace(verdict=done.verdict._replace(outcome=Failure(refused, retry=False)))
        if done.save is not None and isinstance(done.verdict.outcome, Success | Gone):
            with Session(bind=connection, join_transaction_mode="create_savepoint") as session:
                verdict = done.save(session)
                if isinstance(verdict.outcome, Success | Gone):
                    session.commit()
                else:
                    session.rollback()
            return done._replace(verdict=verdict)
        return done

    def _write_ledger(self, connection: Connection, dones: Sequence[Done]) -> None:
        saved, seen, gone, failed = [], [], [], []
        for done in dones:
            lane, key, content = done.job.lane, done.job.key, done.content
            if key is None:
                continue
            match done.verdict.outcome:
                case Success() if content is not None:
                    hashed, data = content.content_hash, content.data
                    saved.append((lane.type, key, content.version, hashed, data, done.job.generation or 0, done.job.id))
                case Unchanged() if content is not None:
                    seen.append((lane.type, key, content.version, done.job.generation or 0, done.job.id))
                case Gone():
                    gone.append((lane.type, key, done.job.generation or 0, done.job.id))
                case Failure(message):
                    failed.append((lane.type, key, transition.one_line(message), done.job.generation or 0, done.job.id))
        for statement, rows, values in (
            (self._save, self._saved, saved),
            (self._touch, self._seen, seen),
            (self._delete, self._gone, gone),
            (self._blame, self._failed, failed),
        ):
            if values:
                statement.count(connection, rows.bind(_last(values)))
        self._validators.replace(connection, dones)


def _move(done: Done) -> Move:
    return transition.finished(done.job, done.verdict, done.retry, to_phase=done.to_phase, exchanges=done.exchanges)


def _settled(dones: Sequence[Done], states: Mapping[int, str]) -> list[Settled]:
    return [Settled(done.job, states.get(done.job.id, "lost"), done.verdict) for done in dones]


def _is_more_than_a_job(done: Done) -> bool:
    """Tell whether something else may have to be read or written than the job and its attempt."""
    if done.save is not None:
        return True
    return done.job.key is not None and (done.content is not None or isinstance(done.verdict.outcome, Gone | Failure))


def _writes(done: Done) -> bool:
    return done.content is not None or isinstance(done.verdict.outcome, Gone)


def _is_late(done: Done, known: dict[tuple[str, str], _Known]) -> bool:
    """Tell whether a later job of this entity was finished while this one was on its way; its answer is the newer one."""
    before = known.get((done.job.lane.type, done.job.key or ""))
    return _writes(done) and before is not None and before.writer > (done.job.generation or 0, done.job.id)


def _last(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Keep the last row of each entity, in order of keys: no statement touches a row twice, and everybody locks in one order."""
    return sorted({row[:2]: row for row in rows}.values(), key=lambda row: row[:2])


def _is_not_after(generation: Any, job_id: Any) -> Any:
    """The record was written by this job or an earlier one (DS-10).

    The listing counts before the id: a job that waits for its retry takes in what a later listing says, and keeps its id,
    although a job with a higher one may have been finished in between.
    """
    return or_(
        record.c.job_generation < generation,
        and_(record.c.job_generation == generation, func.coalesce(record.c.job_id, 0) <= job_id),
    )


def _greatest(old: Any, new: Any) -> Any:
    return case((func.coalesce(new, 0) > old, new), else_=old)
