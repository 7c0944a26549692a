"""Queuing jobs by hand: in bulk, atomic, and in the caller's transaction if wished (M2, M24). Knows no job type."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import (
    CTE,
    Connection,
    Insert,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    case,
    func,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement

from jobs.contention import again
from jobs.database import Database
from jobs.duplicate import Enqueued, Identity, NewJob, Plan, Policy, Twin, check_policy, check_time, plan
from jobs.errors import JobsError, PayloadError
from jobs.fingerprint import decode
from jobs.job import Lane
from jobs.models import job
from jobs.payload import is_same, payload_text
from jobs.prepared import Prepared
from jobs.rows import Rows
from jobs.settle import QUEUED

CHANNEL = "syncs_job"
"""Where PostgreSQL tells listening workers the name of a queue in which something became available."""

LOOKS = 10
"""Looks for twins in one call; each further one means that another transaction took a place in between."""

_CHUNK_ROWS, _CHUNK_BYTES = 5000, 8 * 1024 * 1024
_IS_TWIN = text("state = 'queued' AND fingerprint IS NOT NULL")

Serial = Callable[[Any], str | None]
_Row = tuple[Any, ...]


class Enqueues:
    """New jobs of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._postgres = db.dialect == "postgresql"
        self._twins = Rows(db, {"queue": "text", "fingerprint": "text"})
        self._look = _Statement(db, self._look_statement())
        self._new = Rows(
            db,
            {
                "payload": "json", "fingerprint": "text", "priority": "int", "at": "time", "later": "seconds", "key": "text",
                "serial_key": "text",
            },
        )  # fmt: skip
        self._insert = _Statement(db, self._insert_statement())
        self._changed = Rows(
            db,
            {
                "payload": "json", "id": "id", "phase": "text", "priority": "int", "at": "time", "later": "seconds",
                "serial_key": "text",
            },
        )  # fmt: skip
        self._replace = _Statement(db, self._replace_statement())
        # An update takes SQLite's write lock even when it finds nothing: what is read after it, nobody else can change.
        self._lock = update(job).where(job.c.id == -1).values(message="")

    def _look_statement(self) -> Select[Any]:
        rows = self._twins
        # As text: the caller's connection may decode JSON in its own way.
        payload = job.c.payload.cast(Text) if self._postgres else type_coerce(job.c.payload, Text)
        return (
            select(job.c.id, job.c.queue, job.c.fingerprint, payload.label("payload"))
            # The queue as an expression fits no index, so that PostgreSQL takes job_twin even before it has statistics. With
            # job_ready it read 20,000 queued jobs to find one.
            .join_from(rows.table, job, and_(job.c.fingerprint == rows.fingerprint, job.c.queue.concat("") == rows.queue))
            # SQLite's planner proves a partial index only against literals.
            .where(text("job.state = 'queued'"), text("job.fingerprint IS NOT NULL"))
            # In one order, so that two calls do not wait for each other. The lock lets no claim and no other call between the
            # look and what is made of it.
            .order_by(job.c.id)
            .with_for_update(of=job)
        )

    def _insert_statement(self) -> Insert | Select[Any]:
        rows, now = self._new, self._db.now
        payload: ColumnElement[Any] = rows.payload.cast(postgresql.JSON) if self._postgres else rows.payload
        source = select(
            bindparam("in_queue").cast(Text), bindparam("of_client").cast(Text), bindparam("of_type").cast(Text),
            bindparam("of_phase").cast(Text), rows.key, rows.fingerprint, QUEUED, rows.priority,
            func.coalesce(rows.at, rows.later, now), now, payload, rows.serial_key,
        ).where(rows.payload.is_not(None))  # fmt: skip
        columns = [
            "queue", "client", "type", "phase", "key", "fingerprint", "state", "priority", "available_at", "created_at",
            "payload", "serial_key",
        ]  # fmt: skip
        insert_into = postgresql.insert if self._postgres else sqlite.insert
        statement = (
            insert_into(job)
            .from_select(columns, source)
            # Whoever holds the place and has not committed is waited for: if that one rolls back, the place is ours.
            .on_conflict_do_nothing(index_elements=["queue", "fingerprint"], index_where=_IS_TWIN)
        )
        if not self._postgres:
            return statement.returning(job.c.id, job.c.fingerprint)
        new = statement.returning(job.c.id, job.c.fingerprint, job.c.queue, job.c.available_at).cte("new")
        return select(new.c.id, new.c.fingerprint, _tell(new))

    def _replace_statement(self) -> Update | Select[Any]:
        rows = self._changed
        payload: ColumnElement[Any] = rows.payload.cast(postgresql.JSON) if self._postgres else rows.payload
        statement = (
            update(job)
            .where(job.c.id == rows.id, text("state = 'queued'"))
            .values(
                payload=payload, priority=rows.priority, serial_key=rows.serial_key,
                available_at=func.coalesce(rows.at, rows.later, job.c.available_at),
                # What an earlier attempt reached and noted, it did with the old payload.
                phase=rows.phase, checkpoint=None, retries=0,
                # What killed its workers may do so again as long as it is the same.
                rescues=case((is_same(job.c.payload, rows.payload, self._db.dialect), job.c.rescues), else_=0),
            )
        )  # fmt: skip
        if not self._postgres:
            return statement
        changed = statement.returning(job.c.queue, job.c.available_at).cte("changed")
        return select(_tell(changed))

    def enqueue(
        self,
        jobs: Sequence[NewJob],
        policy: Policy = "allow",
        *,
        serial: Serial | None = None,
        connection: Connection | None = None,
    ) -> list[Enqueued]:
        """Queue jobs: all of them, or, when an error is raised, none.

        Args:
            jobs: in the order in which their ids ascend.
            policy: what becomes of duplicates: `allow`, `reject`, `discard`, `replace`, or a function
                `(new payload, old payload) -> payload`; see `jobs.duplicate.plan`.
            serial: payload → serial key, for payloads that `policy` merges.
            connection: takes part in this transaction, on this database, and leaves its end to the caller. Until then the jobs
                are nobody's, and on PostgreSQL their queued twins are held back. On SQLite a deferred transaction that has
                read before may be refused the turn to writing; begin it with BEGIN IMMEDIATE.

        Returns:
            One answer for each job, in their order.

        Raises:
            DuplicateJob: the policy is `reject`, and a job has a twin.
            NaiveTime: a time has no zone.
            PayloadError: a payload is not JSON, or too large.
            ScheduleError: a delay or moment cannot be.
            ValueError: there is no such policy.
        """
        check_policy(policy)
        jobs = list(jobs)
        for one in jobs:
            check_time(one)
        if not jobs:
            return []
        if connection is not None and not connection.in_transaction():
            connection.begin()
        if policy == "allow":
            return self._allow(jobs, connection)
        for number, one in enumerate(jobs, 1):
            # Here and not only in the transaction, which should be short.
            _text(one, number, len(jobs))
        if connection is None:
            return self._enqueue(jobs, policy, serial)
        if self._postgres:
            # An error on the way, such as a twin that came up late, takes back what was stored until then.
            with connection.begin_nested():
                return self._settle(connection, jobs, policy, serial)
        # No savepoint: with Python's driver it may be the transaction itself, whose end commits. Nor is one needed: under the
        # write lock there are no races, and everything is decided before the first row is written.
        return self._settle(connection, jobs, policy, serial)

    def _allow(self, jobs: Sequence[NewJob], connection: Connection | None) -> list[Enqueued]:
        chunks = list(_inserts(plan(jobs, {}, "allow").inserts))
        if connection is not None:
            return [Enqueued(job_id, None) for job_id in self._add(connection, chunks, {})]
        with self._db.write(single=len(chunks) == 1) as own:
            return [Enqueued(job_id, None) for job_id in self._add(own, chunks, {})]

    @again
    def _enqueue(self, jobs: Sequence[NewJob], policy: Policy, serial: Serial | None) -> list[Enqueued]:
        with self._db.write() as connection:
            return self._settle(connection, jobs, policy, serial, own=True)

    def _settle(
        self, connection: Connection, jobs: Sequence[NewJob], policy: Policy, serial: Serial | None, *, own: bool = False
    ) -> list[Enqueued]:
        answers: list[Enqueued | None] = [None] * len(jobs)
        left: Sequence[int] = range(len(jobs))
        if not own and not self._postgres:
            connection.execute(self._lock)
        for _ in range(LOOKS):
            mine = [jobs[index] for index in left]
            todo = plan(mine, self._queued(connection, mine), policy, serial=serial)
            ids = self._write(connection, todo)
            missed = []
            for index, place in zip(left, todo.places, strict=True):
                job_id = place.twin if place.insert is None else ids[place.insert]
                if job_id is None:
                    missed.append(index)
                else:
                    answers[index] = Enqueued(job_id, job_id if place.is_duplicate else None)
            if not missed:
                return [answer for answer in answers if answer is not None]
            left = missed
        raise JobsError(f"{len(left)} jobs could not be queued: others queue and claim the same ones all the time; try again")

    def _queued(self, connection: Connection, jobs: Sequence[NewJob]) -> dict[Identity, Twin]:
        identities = list(dict.fromkeys(identity for one in jobs if (identity := one.identity) is not None))
        found = {}
        for start in range(0, len(identities), _CHUNK_ROWS):
            rows = self._twins.bind(identities[start : start + _CHUNK_ROWS])
            for job_id, queue, fingerprint, payload in self._look.rows(connection, rows):
                found[queue, fingerprint] = Twin(job_id, None if payload is None else decode(payload))
        return found

    def _write(self, connection: Connection, todo: Plan) -> list[int | None]:
        """Store a plan; return the id of each of its inserts, `None` where another transaction was there first."""
        # All rows are made before the first one is written: what is wrong with one leaves nothing behind.
        changes = [
            (_text(one), job_id, one.lane.phase, one.priority, one.available_at, _later(one), one.serial_key)
            for job_id, one in sorted(todo.updates.items())
        ]
        inserts = list(_inserts(todo.inserts))
        for chunk in _chunks(changes):
            self._replace.rows(connection, self._changed.bind(chunk))
        by_identity: dict[Identity, int] = {}
        # Nothing says which row is whose; those without a fingerprint were all stored, in ascending order.
        rest = iter(self._add(connection, inserts, by_identity))
        return [next(rest) if (identity := one.identity) is None else by_identity.get(identity) for one in todo.inserts]

    def _add(self, connection: Connection, chunks: Sequence[tuple[Lane, list[_Row]]], found: dict[Identity, int]) -> list[int]:
        """Insert rows; return the ids of those without a fingerprint, and put the others into `found`."""
        plain = []
        for lane, chunk in chunks:
            parameters = {**self._new.bind(chunk), **lane.parameters()}
            for job_id, fingerprint, *_ in self._insert.rows(connection, parameters):
                if fingerprint is None:
                    plain.append(job_id)
                else:
                    found[lane.queue, fingerprint] = job_id
        return sorted(plain)


class _Statement:
    """A statement for our own connections, where it is compiled once, and for those of callers."""

    def __init__(self, db: Database, statement: Select[Any] | Insert | Update) -> None:
        self._dialect = db.engine.dialect
        self._statement = statement
        self._prepared = Prepared(statement)

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Execute; return what it selects or returns."""
        ours, theirs = self._dialect, connection.dialect
        if (ours.name, ours.driver, ours.paramstyle) != (theirs.name, theirs.driver, theirs.paramstyle):
            found = connection.execute(self._statement, parameters)
            return found.all() if found.returns_rows else []
        if isinstance(self._statement, Update):
            self._prepared.count(connection, parameters)
            return []
        return self._prepared.rows(connection, parameters)


def _tell(rows: CTE) -> ColumnElement[Any]:
    """Tell listening workers of each job that may be claimed. PostgreSQL sends the same word of a transaction once."""
    return case((rows.c.available_at <= func.statement_timestamp(), func.pg_notify(CHANNEL, rows.c.queue)))


def _inserts(jobs: Sequence[NewJob]) -> Iterator[tuple[Lane, list[_Row]]]:
    """Yield the rows of new jobs, in their order, by lane and in chunks."""
    number = 0
    for lane, same in groupby(jobs, key=lambda one: one.lane):
        rows = []
        for one in same:
            number += 1
            document = _text(one, number, len(jobs))
            rows.append((document, one.fingerprint, one.priority, one.available_at, _later(one), one.key, one.serial_key))
        for chunk in _chunks(rows):
            yield lane, chunk


def _chunks(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Split rows that begin with a document, so that no statement grows beyond what a server likes to read."""
    chunk: list[_Row] = []
    size = 0
    for row in rows:
        if chunk and (len(chunk) == _CHUNK_ROWS or size + len(row[0]) > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += len(row[0])
    if chunk:
        yield chunk


def _later(one: NewJob) -> float | None:
    return None if one.available_at is not None else one.delay


def _text(one: NewJob, number: int = 1, of: int = 1) -> str:
    which = f"{one.lane.type}: the payload" + (f" of job {number} of {of}" if of > 1 else "")
    try:
        return payload_text(one.payload)
    except PayloadError as error:
        raise PayloadError(f"{which} {error}") from error
